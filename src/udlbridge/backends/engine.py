"""What is known of an engine before it runs: whether it can, what memory it takes, when to start it, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from udlbridge.backends.base import Backend
from udlbridge.errors import BackendUnavailable


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here; if not, why, the one command that mends it, and whether `Engine.install` can."""

    ok: bool
    reason: str = ""
    remedy: str = ""
    installable: bool = False


@dataclass(frozen=True)
class Footprint:
    """What memory an engine takes for a kernel, besides the factors that it keeps and the tiles that it fills.

    `fixed_bytes`: for itself, whatever the kernel's size, as thread pools and buffers of the BLAS. `factor_copies`: how
    many copies of a block's factors exist while they are computed: activations, errors or gradients, the result.
    `forms_gradients`: whether it holds the per-sample gradients that it multiplies; else it forms a few at a time, of
    `formed_numbers` numbers at most.
    """

    fixed_bytes: int
    factor_copies: int
    forms_gradients: bool
    formed_numbers: int = 0


class Engine(ABC):
    """An engine as an entry point of the group `udlbridge.backends` names it: its facts, and how to start it.

    To make one imports and starts nothing, so that a kernel can be planned for an engine that is not here.

    `name`: what `backend=` calls it, and the name of its entry point. `footprint`: its memory. `devices`: the kinds of
    devices that it knows, as in `device=`. `start_order`: where several start in one process, the lower ones come
    first. `unavailable`: the error where it cannot run.

    `graph_operations`: names of the operations of graphs (`udlbridge.networks.graphs.operations`) that it computes; a
    graph of others is not given to it. `curved_operations`: those of them whose second derivatives it has, which
    Hessians by the samples and losses of slopes need. `several_inputs`: whether it takes graphs whose samples are the
    fields of a structured array (n,). `structured_graphs`: whether it multiplies Gram matrices at the
    sites of graphs; else their per-sample Jacobians. `taylor_degree`: the highest degree of Taylor polynomials that
    `Backend.expand` computes; None for any. `infinite_kernels`: whether it has `Backend.infinite_kernels`.
    """

    name: str
    footprint: Footprint
    devices: tuple[str, ...] = ("cpu",)
    graph_operations: frozenset[str] = frozenset()
    curved_operations: frozenset[str] = frozenset()
    several_inputs: bool = False
    structured_graphs: bool = False
    taylor_degree: int | None = 1
    infinite_kernels: bool = False
    start_order: int = 50
    unavailable: type[BackendUnavailable] = BackendUnavailable

    @abstractmethod
    def availability(self) -> Availability:
        """Whether it can run here, by looking only: nothing is imported, started or downloaded."""

    def install(self) -> None:  # noqa: B027 - an engine need not know how to
        """Download what is missing. It is asked for where it is installable, and only by those who said so.

        Raises:
            BackendUnavailable: that failed; the message says why.
        """

    def computed(self, model: Any) -> Any:
        """The network as the engine computes it, whose sites say what its kernel costs; mostly that network itself."""
        return model

    @abstractmethod
    def load(self) -> Backend[Any]:
        """Import it and start it. It is asked for once in a process, and only where it is available."""
