"""Layers of sequences: samples (tokens, features)."""

from __future__ import annotations

from typing import ClassVar

from udlbridge.errors import ShapeError
from udlbridge.networks.layers.base import Layer, Shape, Start
from udlbridge.networks.layers.settings import Flag, Index, Size, check_divides, frozen_layer


def _check_sequence(name: str, shape: Shape, features: int | None) -> None:
    if len(shape) != 2 or (features is not None and shape[1] != features):
        raise ShapeError(
            f"{name} got a sample of shape {shape}",
            allowed=f"(tokens, {features if features is not None else 'features'})",
            remedy="put the features last, or correct their number",
        )


@frozen_layer
class Embedding(Layer):
    """y_t = weight[x_t]: a row of `weight` (tokens known, features) for every token of a sample (T,).

    Tokens are integers from 0. So it can only be the first layer, and it has no derivative with respect to the input.
    Source: Bengio et al. (2003), section 2, where the rows are the feature vectors C(i).

    Raises:
        LayerError: a size below 1.

    Examples:
        >>> ub.Embedding(100, 16).output_shape((12,))
        (12, 16)
    """

    kind: ClassVar[str] = "embedding"
    of_tokens: ClassVar[bool] = True
    num_embeddings: Size
    embedding_dim: Size

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` (num_embeddings, embedding_dim)."""
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def start(self, name: str) -> Start:
        """Normal with variance one, as in PyTorch."""
        return "normal"

    def widths(self) -> tuple[int, int, int] | None:
        """Nothing comes before it, so only the width after counts."""
        return -1, self.num_embeddings, self.embedding_dim

    def output_shape(self, shape: Shape) -> Shape:
        """(T,) -> (T, embedding_dim).

        Raises:
            ShapeError: a sample has more than one axis.
        """
        if len(shape) != 1:
            raise ShapeError(
                f"Embedding got a sample of shape {shape}", allowed="(tokens,)", remedy="one row of tokens per sample"
            )
        return (*shape, self.embedding_dim)


@frozen_layer
class SinusoidalPositions(Layer):
    """y = x + table, with table[t, 2i] = sin(t / 10000^(2i/E)) and table[t, 2i+1] = cos(t / 10000^(2i/E)).

    Nothing is trained. Source: Vaswani et al. (2017), section 3.5.

    Examples:
        >>> ub.SinusoidalPositions().output_shape((12, 16))
        (12, 16)
    """

    kind: ClassVar[str] = "sinusoidalpositions"
    keeps: ClassVar[frozenset[int]] = frozenset({-1})

    def output_shape(self, shape: Shape) -> Shape:
        """(T, E) -> (T, E)."""
        _check_sequence("SinusoidalPositions", shape, None)
        return shape


@frozen_layer
class LearnedPositions(Layer):
    """y_t = x_t + weight[t], for sequences of at most `length` tokens: `weight` (length, features).

    Source: Gehring et al. (2017), section 3.1.

    Raises:
        LayerError: a size below 1.

    Examples:
        >>> ub.LearnedPositions(12, 16).output_shape((12, 16))
        (12, 16)
    """

    kind: ClassVar[str] = "learnedpositions"
    length: Size
    features: Size

    def param_shapes(self) -> dict[str, Shape]:
        """`weight` (length, features)."""
        return {"weight": (self.length, self.features)}

    def start(self, name: str) -> Start:
        """Normal with variance one, as the embedding that it is added to."""
        return "normal"

    def widths(self) -> tuple[int, int, int] | None:
        """The last axis stays as wide as it is."""
        return -1, self.features, self.features

    def output_shape(self, shape: Shape) -> Shape:
        """(T, E) -> (T, E), T at most `length`.

        Raises:
            ShapeError: another number of features, or more tokens than `length`.
        """
        _check_sequence("LearnedPositions", shape, self.features)
        if shape[0] > self.length:
            raise ShapeError(
                f"LearnedPositions of length {self.length} got a sequence of {shape[0]} tokens",
                allowed=f"at most {self.length} tokens",
                remedy="cut the sequence, or enlarge length",
            )
        return shape


@frozen_layer
class SelfAttention(Layer):
    """Multi-head self-attention: y = W_o [head_1 ... head_H] + b_o, head_h = softmax(q_h k_h' / sqrt(E/H)) v_h.

    [q; k; v] = W_in x + b_in, cut into H heads each. With `causal`, token t sees the tokens up to t alone. Parameters
    are those of PyTorch's MultiheadAttention: `in_proj_weight` (3E, E), `in_proj_bias` (3E,), `out_proj.weight` (E, E)
    and `out_proj.bias` (E,). Source: Vaswani et al. (2017), equation 1 and section 3.2.2.

    Raises:
        LayerError: a size below 1, or `num_heads` that does not divide `embed_dim`.

    Examples:
        >>> ub.SelfAttention(16, 4, causal=True).output_shape((12, 16))
        (12, 16)
    """

    kind: ClassVar[str] = "selfattention"
    embed_dim: Size
    num_heads: Size
    causal: Flag = False
    bias: Flag = True

    def __attrs_post_init__(self) -> None:
        check_divides(self, "num_heads", "embed_dim")

    def param_shapes(self) -> dict[str, Shape]:
        """The two projections, and their biases if there are any."""
        e = self.embed_dim
        if not self.bias:
            return {"in_proj_weight": (3 * e, e), "out_proj.weight": (e, e)}
        return {
            "in_proj_weight": (3 * e, e),
            "in_proj_bias": (3 * e,),
            "out_proj.weight": (e, e),
            "out_proj.bias": (e,),
        }

    def widths(self) -> tuple[int, int, int] | None:
        """The last axis stays as wide as it is."""
        return -1, self.embed_dim, self.embed_dim

    def output_shape(self, shape: Shape) -> Shape:
        """(T, E) -> (T, E)."""
        _check_sequence(f"SelfAttention({self.embed_dim}, {self.num_heads})", shape, self.embed_dim)
        return shape


@frozen_layer
class Take(Layer):
    """One row of a sample: (T, *rest) -> rest. `Take(-1)` is the last token, where a causal network has seen all.

    y[*rest] = x[index, *rest], the index counted from 0, or from -1 backwards, as in NumPy. Source: Radford et al.
    (2018), section 3.2, for the last token of a causal transformer.

    Raises:
        LayerError: an index that is not a whole number.

    Examples:
        >>> ub.Take(-1).output_shape((12, 16))
        (16,)
    """

    kind: ClassVar[str] = "take"
    keeps: ClassVar[frozenset[int]] = frozenset({-1})
    index: Index = -1

    def output_shape(self, shape: Shape) -> Shape:
        """(T, *rest) -> rest.

        Raises:
            ShapeError: a single axis, or an index outside the first.
        """
        if len(shape) < 2 or not -shape[0] <= self.index < shape[0]:
            raise ShapeError(
                f"Take({self.index}) got a sample of shape {shape}",
                allowed="at least two axes, and an index inside the first",
                remedy="correct the index",
            )
        return shape[1:]
