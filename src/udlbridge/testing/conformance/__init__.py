"""What an engine has to pass: `check_backend`.

A further engine is a package with one entry point of the group `udlbridge.backends` and this suite. It holds every
method of the contract (`udlbridge.backends.base`) against formulas that are written out and derivatives by complex
steps, in float64 within 1e-12, and not against another engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from udlbridge import backends
from udlbridge.backends.base import Backend
from udlbridge.errors import OptionError
from udlbridge.testing.conformance import derivatives, kernels, manners, training

CHECKS: dict[str, Callable[[Backend[Any]], None]] = {
    "facts": manners.facts,
    "outputs": derivatives.outputs,
    "jacobian": derivatives.jacobian,
    "input_jacobian": derivatives.input_jacobian,
    "input_hessian": derivatives.input_hessian,
    "signals": derivatives.signals,
    "programs": derivatives.programs,
    "pull_and_push": derivatives.pull_and_push,
    "kernels": kernels.every_network,
    "rectangles": kernels.rectangles,
    "lower_halves": kernels.lower_halves,
    "some_parameters": kernels.some_parameters,
    "released_factors": kernels.released_factors,
    "narrow_kernels": kernels.narrow_kernels,
    "loss_gradients": training.loss_gradients,
    "slope_losses": training.slope_losses,
    "optimisers": training.optimisers,
    "resumed_trainings": training.resumed_trainings,
    "linearized_trainings": training.linearized_trainings,
    "overflowing_losses": training.overflowing_losses,
    "dtypes": manners.dtypes,
    "memory": manners.memory,
    "states": manners.states,
    "threads": manners.threads,
}
"""Every check by name: a function of the engine, which raises where the engine does not keep the contract."""


def check_backend(engine: str | Backend[Any], *, only: Collection[str] | None = None) -> tuple[str, ...]:
    """Hold an engine against its contract: all that `udlbridge.backends.base.Backend` promises.

    Args:
        engine: the name of an engine that is installed, or one that runs.
        only: names of checks, some of `CHECKS`; None means all. It takes seconds, where compiling takes none.

    Returns:
        The names of the checks that it passed.

    Raises:
        AssertionError: naming every check that failed, with what was found and what has to be.
        OptionError: a check that does not exist.
        UnknownBackend, BackendUnavailable: there is no such engine, or it cannot run here.
    """
    __tracebackhide__ = True
    running = backends.get(engine) if isinstance(engine, str) else engine
    names = list(CHECKS) if only is None else list(only)
    for name in names:
        if name not in CHECKS:
            raise OptionError(f"a check called {name!r}", allowed=", ".join(CHECKS), remedy="use some of these names")
    failures: dict[str, str] = {}
    for name in names:
        try:
            CHECKS[name](running)
        except AssertionError as failure:
            failures[name] = str(failure)
        except Exception as error:  # whatever an engine raises is a failure, and the other checks are still of use
            failures[name] = f"{type(error).__name__}: {error}"
    if failures:
        lines = [f"  {name}: {reason}" for name, reason in failures.items()]
        raise AssertionError(
            f"the engine {running.name!r} fails {len(failures)} of {len(names)} checks\n" + "\n".join(lines)
        )
    return tuple(names)
