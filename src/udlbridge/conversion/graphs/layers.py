"""Translations of affine maps, convolutions, norms, tables and attention."""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from torch import Tensor

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.dynamic import by_own_weights
from udlbridge.conversion.graphs.elementwise import Translation, as_whole
from udlbridge.conversion.graphs.movement import diagonal_of, take
from udlbridge.networks.graphs.values import Extent, PerSample

Extents = tuple[Extent, ...]


def scaled_sum(c: Call, product: Value, shape: Extents) -> Value:
    """beta input + alpha product."""
    addend = c["self"] if "self" in c.arguments else c["input"]
    if c["alpha"] != 1:
        product = c.add("multiply", product, c["alpha"], shape=shape)
    if c["beta"] != 1:
        addend = c.add("multiply", addend, c["beta"], shape=c.shape(addend))
    return c.add("add", product, addend)


def addmm(c: Call) -> Value:
    """beta input + alpha a b."""
    return scaled_sum(c, c.add("matmul", c["mat1"], c["mat2"]), c.shape())


def baddbmm(c: Call) -> Value:
    """The same, batched."""
    return scaled_sum(c, c.add("matmul", c["batch1"], c["batch2"]), c.shape())


def matmul(c: Call) -> Value:
    """With vectors as matrices of one row or one column."""
    left, right = list(c.arguments.values())[:2]
    a, b = c.shape(left), c.shape(right)
    left = c.reshape(left, (1, *a)) if len(a) == 1 else left
    right = c.reshape(right, (*b, 1)) if len(b) == 1 else right
    rows, columns = c.shape(left)[-2], c.shape(right)[-1]
    outer = c.shape() if len(a) > 1 and len(b) > 1 else None
    if outer is None:
        shape = c.shape()
        lead = shape[: len(shape) - (len(a) > 1) - (len(b) > 1)]
        return c.reshape(c.add("matmul", left, right, shape=(*lead, rows, columns)))
    return c.add("matmul", left, right)


def einsum(c: Call) -> Value:
    """Of any number of operands; `...` becomes letters, and of a letter that stands twice in a term the diagonal."""
    operands = c["tensors"]
    equation = c["equation"].replace(" ", "")
    terms, arrow, output = equation.partition("->")
    parts = terms.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    counts = [
        c.ndim(x) - len(part.replace("...", "")) if "..." in part else 0
        for part, x in zip(parts, operands, strict=True)
    ]
    dots = "".join(free[: max(counts)])
    parts = [part.replace("...", dots[len(dots) - count :]) for part, count in zip(parts, counts, strict=True)]
    if not arrow:
        letters = "".join(parts)
        output = "..." + "".join(sorted(x for x in set(letters) if letters.count(x) == 1 and x not in dots))
    output = output.replace("...", dots)
    pairs = [without_repeats(c, part, of) for part, of in zip(parts, operands, strict=True)]
    parts, operands = [part for part, _ in pairs], [of for _, of in pairs]
    if len(parts) == 1:
        return c.add("einsum", operands[0], 1.0, equation=f"{parts[0]},->{output}")
    result, own = operands[0], parts[0]
    sizes = {
        x: size for part, of in zip(parts, operands, strict=True) for x, size in zip(part, c.shape(of), strict=True)
    }
    for index in range(1, len(parts)):
        later = "".join(parts[index + 1 :]) + output
        letters = "".join(dict.fromkeys(x for x in own + parts[index] if x in later))
        letters = output if index == len(parts) - 1 else letters
        equation = f"{own},{parts[index]}->{letters}"
        result = c.add("einsum", result, operands[index], shape=[sizes[x] for x in letters], equation=equation)
        own = letters
    return c.value(result)


def without_repeats(c: Call, letters: str, of: Any) -> tuple[str, Any]:
    """The letters and the operand where each stands once, by diagonals."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            a = letters.index(letter)
            b = letters.index(letter, a + 1)
            of = diagonal_of(c, of, a, b)
            letters = letters[:a] + letters[a + 1 : b] + letters[b + 1 :] + letter
    return letters, of


def per_axis(value: Any, dims: int) -> tuple[int, ...]:
    """A setting for every axis."""
    listed = [value] if isinstance(value, int) else list(value)
    return tuple(listed * dims if len(listed) == 1 else listed)


def convolution(c: Call) -> Value:
    """Over 1 to 3 axes; "same" may need more zeros at one end.

    Raises:
        Unfit: there is no axis of samples.
    """
    x, weight = c["input"], c["weight"]
    dims = c.ndim(weight) - 2
    if c.ndim(x) != dims + 2:
        raise Unfit("a sample without an axis of samples")
    stride, dilation, padding = per_axis(c["stride"], dims), per_axis(c["dilation"], dims), c["padding"]
    own = any(isinstance(size, PerSample) for size in (*c.shape(x)[1:], *c.shape(weight)))
    if c.get("transposed"):
        if own:
            raise Unfit("its weights are computed for each sample")
        return transposed(c)
    if padding == "valid":
        padding = (0,) * dims
    elif padding == "same":
        totals = [d * (c.size(weight, axis + 2) - 1) for axis, d in enumerate(dilation)]
        if any(total % 2 for total in totals):
            shape = list(c.shape(x))
            for axis, total in enumerate(totals):
                shape[axis + 2] = c.size(x, axis + 2) + total
            pads = ((0, 0), (0, 0), *((total // 2, total - total // 2) for total in totals))
            x = c.add("pad", x, shape=shape, pads=pads, mode="constant", value=0.0)
            totals = [0] * dims
        padding = tuple(total // 2 for total in totals)
    settings = {"stride": stride, "padding": per_axis(padding, dims), "dilation": dilation}
    if own:
        return by_own_weights(c, x, **settings)
    return c.add("conv", x, weight, c["bias"], **settings, groups=c["groups"])


def transposed(c: Call) -> Value:
    """Over 1 to 3 axes."""
    dims = c.ndim(c["weight"]) - 2
    names = ("stride", "padding", "output_padding", "dilation")
    settings = {name: per_axis(c[name], dims) for name in names}
    return c.add("conv_transpose", c["input"], c["weight"], c["bias"], **settings, groups=c["groups"])


def batch_norm(c: Call) -> Value:
    """With running statistics; of weights, as standardised convolutions have it, with their own.

    Raises:
        Unfit: it takes the statistics of the batch.
    """
    if c.get("training") or c.get("running_mean") is None:
        return standardised(c)
    scale, shift = scale_and_shift(c, 1)
    return c.add("batch_norm", c["input"], c["running_mean"], c["running_var"], scale, shift, epsilon=c["eps"])


def standardised(c: Call) -> Value:
    """(x - mean) / sqrt(var + epsilon) for each channel, of what is the same for all samples.

    Raises:
        Unfit: it is not.
    """
    x = c["input"]
    if any(isinstance(size, PerSample) for size in c.shape(x)):
        raise Unfit("it takes the statistics of the batch")
    n, channels, *space = (c.size(x, axis) for axis in range(c.ndim(x)))
    others = tuple(range(2, 2 + len(space)))
    rows = c.reshape(
        c.add("permute", x, shape=(channels, n, *space), axes=(1, 0, *others)), (channels, n * math.prod(space))
    )
    y = c.add("layer_norm", rows, shape=c.shape(rows), axes=1, epsilon=c["eps"])
    for op, own in (("multiply", c["weight"]), ("add", c["bias"])):
        if own is not None:
            y = c.add(op, y, c.reshape(own, (channels, 1)), shape=c.shape(rows))
    return c.add("permute", c.reshape(y, (channels, n, *space)), axes=(1, 0, *others))


def native_batch_norm(c: Call) -> tuple[Value, None, None]:
    """As decompositions call it."""
    return batch_norm(c), None, None


def instance_norm(c: Call) -> Value:
    """A group norm of as many groups as channels."""
    if not c["use_input_stats"]:
        return batch_norm(c)
    scale, shift = scale_and_shift(c, 1)
    return c.add("group_norm", c["input"], scale, shift, groups=c.size(c["input"], 1), epsilon=c["eps"])


def scale_and_shift(c: Call, axes: int) -> tuple[Any, Any]:
    """Both or none, or a scale alone: where there is only a shift, the scale is 1."""
    scale, shift = c["weight"], c["bias"]
    if scale is None and shift is not None:
        x = c["input"]
        shape = (c.size(x, 1),) if axes == 1 else c.shape(shift)
        scale = torch.ones([int(size) for size in shape if isinstance(size, int)])
    return scale, shift


def layer_norm(c: Call) -> Value:
    """Over the last axes."""
    scale, shift = scale_and_shift(c, 0)
    return c.add("layer_norm", c["input"], scale, shift, axes=len(c["normalized_shape"]), epsilon=c["eps"])


def rms_norm(c: Call) -> Value:
    """Without an epsilon, it is that of the dtype."""
    epsilon = torch.finfo(c.builder.dtype).eps if c["eps"] is None else c["eps"]
    return c.add("rms_norm", c["input"], c["weight"], axes=len(c["normalized_shape"]), epsilon=epsilon)


def group_norm(c: Call) -> Value:
    """Over groups of channels."""
    scale, shift = scale_and_shift(c, 1)
    return c.add("group_norm", c["input"], scale, shift, groups=c["num_groups"], epsilon=c["eps"])


def bilinear(c: Call) -> Value:
    """Y_o = x' W_o z + b_o."""
    x, z, weight, bias = (c[name] for name in ("input1", "input2", "weight", "bias"))
    lead = string.ascii_lowercase[: c.ndim(x) - 1]
    outer = (*c.shape(x)[:-1], c.size(weight, 0))
    half = c.add("einsum", x, weight, shape=(*outer, c.size(weight, 2)), equation=f"{lead}x,yxz->{lead}yz")
    y = c.add("einsum", half, z, shape=outer, equation=f"{lead}yz,{lead}z->{lead}y")
    return y if bias is None else c.add("add", y, bias)


def embedding(c: Call) -> Value:
    """A table and whole numbers.

    Raises:
        Unfit: it scales gradients by how often tokens occur.
    """
    if c["scale_grad_by_freq"]:
        raise Unfit("its gradients depend on how often tokens come")
    rows = c.size(c["weight"], 0)
    padding = c["padding_idx"]
    return c.add("embedding", c["weight"], as_whole(c, c["indices"]), padding=padding % rows if padding >= 0 else -1)


def attention(c: Call) -> Value:
    """softmax(Q K' / sqrt(d)) V.

    Raises:
        Unfit: it draws random numbers.
    """
    if c["dropout_p"]:
        raise Unfit("it draws random numbers")
    query, key, value, mask = c["query"], c["key"], c["value"], c["attn_mask"]
    if c.get("enable_gqa"):  # heads share keys
        key, value = (take(c, one, c.axis(one, -3), shared_heads(c, query, one)) for one in (key, value))
    scale = c.size(query, -1) ** -0.5 if c["scale"] is None else c["scale"]
    return c.add("attention", query, key, value, mask, causal=bool(c["is_causal"]), scale=float(scale))


def shared_heads(c: Call, query: Any, of: Any) -> Tensor:
    """For every head of the queries, the number of that of keys or values."""
    heads, own = c.size(query, -3), c.size(of, -3)
    return torch.arange(heads) // (heads // own)


TRANSLATIONS: dict[str, Translation] = {
    "linear": lambda c: c.add("linear", c["input"], c["weight"], c["bias"]),
    "addmm": addmm,
    "baddbmm": baddbmm,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matmul),
    "einsum": einsum,
    "bilinear": bilinear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed),
    "batch_norm": batch_norm,
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_native_batch_norm_legit"), native_batch_norm),
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "embedding": embedding,
    "scaled_dot_product_attention": attention,
}
"""By the name of torch's operation."""
