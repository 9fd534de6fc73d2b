"""What a module does while it is evaluated, call by call of torch's functions, in its own thread alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from udlbridge.backends.pytorch.devices import float32_as_allowed
from udlbridge.backends.pytorch.norms import with_errors_in_order

DRAWS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_",
    "multinomial", "normal", "normal_", "poisson", "uniform_", "exponential_", "geometric_", "log_normal_", "cauchy_",
    "random_", "gumbel_softmax", "fractional_max_pool2d_with_indices", "fractional_max_pool3d_with_indices",
}  # fmt: skip
"""Functions that draw random numbers whenever they are called."""

DROPOUTS = {
    "dropout": 0.5, "alpha_dropout": 0.5, "dropout1d": 0.5, "dropout2d": 0.5, "dropout3d": 0.5,
    "feature_alpha_dropout": 0.5, "dropout_": 0.5, "feature_dropout": 0.5,
}  # fmt: skip
"""Functions that draw random numbers in training, and their default probability."""

DRAWING = {*DRAWS, *DROPOUTS, "scaled_dot_product_attention", "rrelu", "rrelu_"}
"""All functions that may draw random numbers."""

FROM_NUMBERS = {"tensor", "as_tensor", "asarray", "from_numpy", "frombuffer", "from_dlpack", "scalar_tensor"}
"""Functions that make tensors of numbers, which may have come from a sample."""

TABLES = {"embedding": (0, 1), "embedding_bag": (0, 1)}
"""Functions that look up rows, and where their tokens and their table stand among the arguments."""


NORMS = frozenset({"batch_norm", "instance_norm"})
"""Functions by name that give norms of channels."""

SCALARS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})
"""The types of most arguments that are no tensors."""

TENSORS = frozenset({Tensor, torch.nn.Parameter})
"""The types of most tensors: torch takes a while to say whether something is one."""


def _distances(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """As torch.cdist, whose backward pass gives wrong numbers where several cotangents go through it at once (2.13)."""
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), ord=p, dim=-1)


class OutsideTableError(Exception):
    """A token that its table does not have."""

    def __init__(self, token: int, rows: int) -> None:
        super().__init__(token, rows)
        self.token, self.rows = token, rows


class Watching(TorchFunctionMode):
    """Evaluates with the parameters' stand-ins, and notes what does not depend on the samples.

    A function that closes over the caller's module, as a hook may, gets the stand-ins too. `constant` are the nodes of
    autograd's graph that were made from parameters, buffers and numbers alone; the rest is taken to depend on the
    samples. `draws` names the functions that drew random numbers. `tables`: for the names of `inputs`, which are given
    by the places of their numbers, the rows of the smallest table that they are looked up in.
    """

    def __init__(
        self, stand_ins: Mapping[int, Tensor], constants: Iterable[Tensor], inputs: Mapping[int, str] | None = None
    ) -> None:
        super().__init__()
        self.tables: dict[str, int] = {}
        self._inputs = inputs or {}
        self.constant: set[Node] = set()
        self.draws: list[str] = []
        self._stand_ins = stand_ins
        # By id, and held so that no other tensor takes it over.
        self._same = {id(value): value for value in constants}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":  # shapes and the like, and views as .T and .data
            return self._called(func, name, args, kwargs or {}) if _is_view(func) else func(*args)
        return self._called(func, name, args, kwargs or {})

    def _called(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        given: list[Tensor] = []
        args = self._stood_in(args, given)
        kwargs = self._stood_in(kwargs, given) if kwargs else kwargs
        if _draws(name, args, kwargs):
            self.draws.append(name)
        if name in TABLES and self._inputs:
            self._note_table(name, args, kwargs)
        try:
            if func is torch.cdist:
                result = _distances(*args, **kwargs)
            elif name in NORMS:
                result = with_errors_in_order(func(*args, **kwargs))
            else:
                result = func(*args, **kwargs)
        except (IndexError, RuntimeError):
            if name in TABLES:
                _check_tokens(name, args, kwargs)
            raise
        if not self._depends(given) and (given or name not in FROM_NUMBERS):
            for value in _flat(result):
                self._same[id(value)] = value
                if value.grad_fn is not None:
                    self.constant.add(value.grad_fn)
        elif given and (_writes(name) or "out" in kwargs):
            for value in [given[0], *_flat(kwargs.get("out"))]:  # written to
                self._same.pop(id(value), None)
        return result

    def _depends(self, given: list[Tensor]) -> bool:
        """Whether any of these depends on samples."""
        same = self._same
        for value in given:  # noqa: SIM110 - each of torch's calls waits, and `any` takes three times as long
            if id(value) not in same:
                return True
        return False

    def _note_table(self, name: str, args: Any, kwargs: Any) -> None:
        tokens, weight = _lookup(name, args, kwargs)
        field = None if tokens is None or weight is None else self._inputs.get(tokens.data_ptr())
        if field is not None and weight is not None:
            self.tables[field] = min(len(weight), self.tables.get(field, len(weight)))

    def _stood_in(self, value: Any, given: list[Tensor]) -> Any:
        """The same with the stand-ins; in `given` come all tensors of it. One pass: each of torch's calls waits."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind in TENSORS or isinstance(value, Tensor):
            found = self._stand_ins.get(id(value), value)
            given.append(found)
            return found
        if isinstance(value, tuple | list):
            items = [self._stood_in(item, given) for item in value]
            if all(map(is_, items, value)):
                return value
            return kind(*items) if hasattr(value, "_fields") else kind(items)
        if isinstance(value, dict):
            return {name: self._stood_in(item, given) for name, item in value.items()}
        return value


@cache
def _writes(name: str) -> bool:
    """Whether a function of this name writes to its first argument: x.add_(y), x += y, x[i] = y."""
    dunder = name.startswith("__") and name.endswith("__")
    return name == "__setitem__" or (name.startswith("__i") if dunder else name.endswith("_"))


def _is_view(func: Any) -> bool:
    return getattr(getattr(func, "__self__", None), "__name__", "") in ("T", "mT", "H", "mH", "data", "real")


def _flat(value: Any) -> Iterator[Tensor]:
    if type(value) in TENSORS or isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _flat(item)


def _draws(name: str, args: Any, kwargs: Any) -> bool:
    """Whether the call draws from torch's own generator; a module's own generator shows by what it draws."""
    if name not in DRAWING:
        return False
    if kwargs.get("generator") is not None:
        return False
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0) > 0.0)
    if name in DROPOUTS:
        p = kwargs.get("p", args[1] if len(args) > 1 else DROPOUTS[name])
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        return bool(training) and p > 0
    if name in ("rrelu", "rrelu_"):
        return bool(kwargs.get("training", args[3] if len(args) > 3 else False))
    return name in DRAWS


def _lookup(name: str, args: Any, kwargs: Any) -> tuple[Tensor | None, Tensor | None]:
    """Tokens and table of a call; None where they are not what they should be."""
    where, table = TABLES[name]
    tokens = kwargs.get("input", args[where] if len(args) > where else None)
    weight = kwargs.get("weight", args[table] if len(args) > table else None)
    if name == "embedding" and isinstance(tokens, Tensor) and tokens.is_floating_point():
        tokens, weight = weight, tokens  # torch.embedding has them the other way round
    if not isinstance(tokens, Tensor) or not isinstance(weight, Tensor) or tokens.is_floating_point():
        return None, None
    return tokens, weight


def _check_tokens(name: str, args: Any, kwargs: Any) -> None:
    tokens, weight = _lookup(name, args, kwargs)
    if tokens is None or weight is None:
        return
    outside = tokens[(tokens < 0) | (tokens >= len(weight))]
    if outside.numel():
        raise OutsideTableError(int(outside.flatten()[0]), len(weight))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, gradients are followed and autocast is off, whatever the caller has set, in this thread alone.

    On a GPU, convolutions are as precise as products, in all threads.
    """
    # Which devices have an autocast depends on torch's version.
    others = (kind for kind in ("cuda", "mps") if torch.amp.is_autocast_available(kind))
    kinds = ["cpu", *(kind for kind in others if torch.is_autocast_enabled(kind))]
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.enable_grad(), float32_as_allowed()):
            stack.enter_context(context)
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
