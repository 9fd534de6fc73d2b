"""What kernel is asked for: the options of `ntk`, `plan`, `compute_kernel` and their like, checked once at the door."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from udlbridge import backends
from udlbridge.backends.jobs import KernelJob, Method, ModuleJob
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.errors import OptionError
from udlbridge.networks.inputs import check_model, output_size
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, selected_parameters
from udlbridge.options import parse_bytes, thread_count

DEFAULT_MEMORY = "2GB"


@dataclass(frozen=True, kw_only=True)
class KernelRequest(KernelJob):
    """A kernel as it was asked for: the job of an engine, and what planning and computing it have to know besides.

    `backend`: the engine's name. `sample_shape`: of one sample. `memory`: bound of the working memory, in bytes.
    """

    backend: str
    sample_shape: tuple[int, ...]
    memory: int


def kernel_request(
    model: Model,
    sample_shape: tuple[int, ...],
    *,
    outputs: Outputs,
    params: Selection,
    backend: str | None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str | None = None,
) -> KernelRequest:
    """The options as the user wrote them, checked, and what is left out filled in; they mean what they mean for `ntk`.

    Raises:
        ShapeError: the network cannot take such samples, or does not give one vector for each.
        OutputsError, ParameterError, UnknownBackend, OptionError: what is wrong with an option.
    """
    check_model(model)
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    return KernelRequest(
        model=model,
        reduction=checked_reduction(outputs, output_size(model, sample_shape)),
        method=checked_method(method),
        threads=thread_count(threads),
        device=backends.checked_device(name, "cpu" if device is None else device),
        params=selected_parameters(model, params),
        backend=name,
        sample_shape=sample_shape,
        memory=parse_bytes(memory),
    )


def module_request(
    module: Any,
    *,
    outputs: Outputs,
    params: Selection,
    backend: str | None,
    method: str,
    memory: int | str,
    threads: int | None,
    device: str | None,
) -> ModuleJob:
    """The same for a `torch.nn.Module`, whose kernel torch alone computes, by the plain method.

    Raises:
        OptionError: no module, or what only a `Model` has.
        UnknownBackend: no such engine.
    """
    # Whoever has a module has imported torch: there is no need to import it to know that this is not one.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(module, torch.nn.Module):
        raise OptionError(
            f"a {type(module).__name__} in the place of the model",
            allowed="a udlbridge.Model or a torch.nn.Module",
            remedy="describe the network with ub.Model([...])",
        )
    name = backends.checked_name("torch" if backend is None else backend)
    checked_method(method)
    if name != "torch" or method == "structured":
        raise OptionError(
            f"backend={backend!r}, method={method!r} for a torch.nn.Module",
            allowed="backend='torch' and method='plain'",
            remedy="translate the module: ub.from_torch(module)",
        )
    return ModuleJob(
        module=module,
        outputs=outputs,
        params=params,
        memory=parse_bytes(memory),
        threads=thread_count(threads),
        device=backends.checked_device(name, "cpu" if device is None else device),
    )


def checked_method(method: str) -> Method:
    """The method that `method` means: "auto" is "structured", which never costs more.

    Raises:
        OptionError: unknown.
    """
    if method == "plain":
        return "plain"
    if method not in ("auto", "structured"):
        raise OptionError(f"method={method!r}", allowed="auto, structured, plain", remedy='leave it at "auto"')
    return "structured"
