"""Which kernel is asked for: the options of `ntk`, `plan`, `compute_kernel` and the like, checked once at the door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from udlbridge import backends
from udlbridge.backends.jobs import KernelJob, Method
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.errors import OptionError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import check_model, is_julia, is_module, output_size
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, selected_parameters
from udlbridge.options import brief, parse_bytes, thread_count
from udlbridge.texts import kind_of
from udlbridge.words import EngineName

DEFAULT_MEMORY = "2GB"


@dataclass(frozen=True, kw_only=True)
class KernelRequest(KernelJob):
    """A kernel as it was asked for: the job of an engine, and what planning and computing it have to know besides.

    `backend`: the engine's name. `sample_shape`: of one sample. `memory`: bound of the working memory, in bytes.
    """

    backend: str
    sample_shape: tuple[int, ...]
    memory: int

    @property
    def computed(self) -> Any:
        """The network as the engine computes it, whose sites say what the kernel costs."""
        return backends.engine(self.backend).computed(self.model)


def kernel_request(
    model: Model | ForeignNetwork,
    sample_shape: tuple[int, ...],
    *,
    outputs: Outputs,
    params: Selection,
    backend: str | None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: Any = None,
) -> KernelRequest:
    """The options as the user wrote them, checked, and what is left out filled in; they mean what they mean for `ntk`.

    Raises:
        ShapeError: the network cannot take such samples, or does not give one vector for each.
        OutputsError, ParameterError, UnknownBackend, OptionError: what is wrong with an option.
    """
    if not isinstance(model, ForeignNetwork):
        check_model(model)
    name = checked_engine(model, backend)
    return KernelRequest(
        model=model,
        reduction=checked_reduction(outputs, output_size(model, sample_shape)),
        method=checked_method(method, model, name),
        threads=thread_count(threads),
        device=checked_device(model, name, device),
        params=selected_parameters(model, params),
        backend=name,
        sample_shape=sample_shape,
        memory=parse_bytes(memory),
    )


def as_network(model: Any, *, output: Any = None) -> Any:
    """A module of PyTorch, or a model in Julia, as a network for every function that takes a `Model`.

    These do the same by themselves, without `output`.

    The module is neither moved nor changed, and its weights are read when something is computed. The kernel is over the
    parameters that require a gradient; one that is shared has several names and counts once, with all of its uses.
    Every function gives (n, O) outputs, with more axes flattened in C order, and one output for each sample as (n, 1).
    Half precision computes in its own dtype, and gives float32.

    A model in Julia is an object of juliacall: a Flux chain, a layer, any callable whose parameters Flux finds. Julia
    computes it, in inference mode. Samples are first in Python and last in Julia: images (n, C, H, W) come to it as
    (W, H, C, n). See `udlbridge.julia_model`.

    Args:
        model: the module or the model in Julia, or a `Model` or `Graph`, which is given back.
        output: which of its outputs counts, where forward gives several: a key or attribute, as "logits", a position,
            or a function of what forward gives.

    Raises:
        OptionError: neither; or `output` of what is a network already.
        ConversionError: a module without numbers, or one in training mode that then does something else; a model in
            Julia without parameters, or in training mode.

    Examples:
        >>> from torch import nn
        >>> ub.as_network(nn.Linear(2, 3)).n_params
        9
    """
    if isinstance(model, Model | ForeignNetwork):
        if output is not None:
            raise OptionError(
                f"output={brief(output)} with {kind_of(model)}",
                allowed="output= with a torch.nn.Module, whose forward may give several",
                remedy="leave it out" if isinstance(model, Model) else "say it once, to as_network",
            )
        return model
    if is_julia(model) and output is None:
        from udlbridge.backends.julia.models import adopted

        return adopted(model)
    if not is_module(model):
        given = f"output={brief(output)} with " if is_julia(model) else ""
        raise OptionError(
            f"{given}{kind_of(model)} in the place of the model",
            allowed="a udlbridge.Model, a torch.nn.Module or a model in Julia, and output= with a module alone",
            remedy="describe the network with ub.Model([...])",
        )
    from udlbridge.backends.pytorch.modules import ModuleNetwork

    return ModuleNetwork(model, output)


def checked_engine(model: Model | ForeignNetwork, backend: str | None) -> EngineName:
    """The name of the engine that computes the network.

    Raises:
        UnknownBackend: no such engine.
        OptionError: it does not compute the network.
    """
    names = backends.computing(model)
    name = backends.checked_name(backends.default_name(names) if backend is None else backend)
    if name in names:
        return name
    graph = isinstance(model, Graph)
    lacking = sorted(model.operations - backends.engine(name).graph_operations) if isinstance(model, Graph) else []
    shown = f" that has {', '.join(lacking[:5])}" if lacking else " of several inputs" if graph else ""
    raise OptionError(
        f"backend={brief(backend)} for a {'udlbridge.Graph' if graph else 'torch.nn.Module'}{shown}",
        allowed=" or ".join(f"backend={engine!r}" for engine in names) or "none of the engines that are installed",
        remedy="name one of these"
        if graph
        else "translate it: ub.from_torch(module) gives a Model, for every engine, where it is a chain of layers; "
        "ub.from_torch(module, x) gives a Graph, for the engines that know its operations",
    )


def check_curvature(model: Model | ForeignNetwork, engine: EngineName) -> None:
    """Raise `OptionError` for a graph with operations of which the engine has no second derivatives by the samples."""
    if isinstance(model, Graph):
        lacking = sorted(model.operations - backends.engine(engine).curved_operations)
        more = ", ..." if len(lacking) > 5 else ""
        backends.check_ability(
            f"second derivatives of a graph that has {', '.join(lacking[:5])}{more}",
            engine,
            lambda other: model.operations <= other.curved_operations,
        )


def checked_device(network: Any, engine: str, device: Any) -> str:
    """The name of the device, or where it is None that of the network's own: a module computes where it is.

    Raises:
        OptionError: the engine knows no such device.
    """
    own = network.device if isinstance(network, ForeignNetwork) and network.engine == engine else "cpu"
    return backends.checked_device(engine, own if device is None else device_name(device))


def device_name(device: Any) -> Any:
    """What torch calls a `torch.device`; anything else as it is."""
    return str(device) if type(device).__module__ == "torch" else device


def checked_method(method: str, model: Any, backend: str) -> Method:
    """The method that `method` means: "auto" is "structured", which never costs more, wherever there is one.

    Raises:
        OptionError: unknown, or the engine has no structured kernels of such a network.
    """
    if not isinstance(method, str) or method not in ("auto", "structured", "plain"):
        raise OptionError(f"method={brief(method)}", allowed="auto, structured, plain", remedy='leave it at "auto"')
    if method == "structured" and isinstance(model, Graph):
        backends.check_ability("structured kernels of graphs", backend, lambda engine: engine.structured_graphs)
    if method == "auto" and isinstance(model, Graph) and not backends.engine(backend).structured_graphs:
        return "plain"
    return "plain" if method == "plain" else "structured"
