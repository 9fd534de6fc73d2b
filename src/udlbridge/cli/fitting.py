"""Samples of a file as the network takes them: their dtype, and the names of several inputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from udlbridge.cli.sample_files import Named, read_array

if TYPE_CHECKING:
    import numpy as np

    from udlbridge.networks.foreign import ForeignNetwork


def read(named: Named, model: Any, *, cast: bool, without: Named | None = None, fixed: bool = False) -> Any:
    """The samples of a file, of the dtype that the model takes; text has none, and takes the model's.

    The network of a store is `fixed`: no option converts it.

    Raises:
        DataError: as `read_array`.
        DTypeError: another dtype, and not `cast`.
    """
    from udlbridge.networks.foreign import ForeignNetwork

    foreign = isinstance(model, ForeignNetwork)
    found = read_array(named, several=foreign, without=without)
    if isinstance(found, dict):
        found = _inputs(found, model, named, cast=cast, fixed=fixed)
    if isinstance(found, dict):
        return found
    if found.dtype == model.dtype or model.takes_tokens:
        return found
    if isinstance(model, ForeignNetwork) and found.dtype.kind in "iub":
        return _integers(found, model, named, cast=cast)
    return fitted(found, model.dtype, named, cast=cast, fixed=fixed)


def _inputs(found: dict[str, np.ndarray], model: ForeignNetwork, named: Named, *, cast: bool, fixed: bool) -> Any:
    """The arrays of a file, where they have the names of what the module takes; a single one may have any."""
    from udlbridge.errors import DataError, DTypeError, InputError

    floats = {name: value.astype(model.dtype) for name, value in found.items() if value.dtype.kind == "f"}
    try:
        model.checked_batch({**found, **floats} if cast else found, "x")
    except DTypeError as error:
        raise DTypeError(
            error.given,
            allowed=error.allowed,
            remedy="add --cast, which converts the samples" + ("" if fixed else ", or --dtype"),
        ) from error
    except InputError as error:
        if len(found) == 1:
            return next(iter(found.values()))
        if not re.search(r"unexpected keyword argument|required positional argument|takes one input", error.given):
            raise
        names = ", ".join(found)
        raise DataError(
            f"{named} holds {names}, and {error.given}",
            allowed="arrays that are called as the arguments of forward, or one array",
            remedy=f"name the one that is meant, as {named}:{next(iter(found))}",
        ) from error
    return {**found, **floats} if cast else found


def _integers(found: np.ndarray, model: ForeignNetwork, named: Named, *, cast: bool) -> np.ndarray:
    """Integers as they are where the module takes them, tokens say; else as numbers of its dtype, if `cast`."""
    from udlbridge.errors import DTypeError, UDLBridgeError
    from udlbridge.networks.foreign import wants_tokens

    try:
        model.checked_batch(found, "x")
        return found
    except UDLBridgeError as error:
        numbers = found.astype(model.dtype)
        try:
            model.checked_batch(numbers, "x")
        except UDLBridgeError as other:
            raise (error if wants_tokens(other) else other) from None
        if cast:
            return numbers
        raise DTypeError(
            f"{named} has dtype {found.dtype}, the network takes {model.dtype}",
            allowed="one dtype for both: it is never changed silently",
            remedy="add --cast, which converts the samples",
        ) from error


def fitted(found: np.ndarray, dtype: np.dtype[Any], named: Named, *, cast: bool, fixed: bool = False) -> np.ndarray:
    """Samples of a file in the dtype of the network; text has none, and takes it.

    Raises:
        DTypeError: another dtype, and not `cast`; or no numbers.
    """
    from udlbridge.errors import DTypeError

    if found.dtype.kind not in "iufb":
        raise DTypeError(f"{named} has dtype {found.dtype}", allowed="numbers", remedy="name another array or column")
    if found.dtype == dtype or cast or named.path.suffix.lower() == ".csv":
        return found.astype(dtype, copy=False)
    widens = found.dtype.name in ("float32", "float64") and not fixed
    widen = f"--dtype {found.dtype}, which converts the network, or " if widens else ""
    raise DTypeError(
        f"{named} has dtype {found.dtype}, the network has {dtype}",
        allowed="one dtype for both: it is never changed silently",
        remedy=f"add {widen}--cast, which converts the samples",
    )
