"""Progress of long computations: rate, time left, bytes written. Quiet where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from udlbridge.options import checked_flag, show_bytes
from udlbridge.texts import counted


class Advance(Protocol):
    """Tells the bar of work done: operations, and bytes written."""

    def __call__(self, flops: float, written: int) -> None:
        """Advance by so many operations and bytes."""


def is_shown(progress: object) -> bool:
    """Whether progress is shown; None means: if standard error is a terminal.

    Raises:
        OptionError: neither None nor a truth value.
    """
    return sys.stderr.isatty() if progress is None else checked_flag("progress", progress)


@contextmanager
def kernel_progress(total: float, *, show: bool | None, operations: bool = True) -> Iterator[Advance]:
    """A bar on standard error; `show` None means: if that is a terminal.

    `operations` says that operations are counted, whose rate is shown, and not blocks.
    """
    if not is_shown(show):
        yield lambda flops, written: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("kernel"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[written]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("kernel", total=total, rate="", written="")
        done = 0

        def advance(flops: float, written: int) -> None:
            nonlocal done
            done += written
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = (bar.tasks[0].completed + flops) / elapsed / 1e9 if elapsed > 0 else 0.0
            text = f"{show_bytes(done)} written" if done else ""
            bar.update(task, advance=flops, rate=f"{rate:,.0f} GFLOP/s" if operations else "", written=text)

        yield advance


@contextmanager
def spectrum_progress(*, show: bool | None) -> Iterator[Callable[[int, float, float], None] | None]:
    """A line on standard error that says how many products were taken, and what is known of the smallest eigenvalue.

    How many will be needed is not known before. `show` None means: if standard error is a terminal.
    """
    if not is_shown(show):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("spectrum: {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as line:
        task = line.add_task("first product", total=None)

        def watch(products: int, lowest: float, tolerance: float) -> None:
            known = f", lambda_min > {lowest:.3g} (tolerance {tolerance:.3g})" if lowest > float("-inf") else ""
            line.update(task, description=f"{counted(products, 'product')}{known}")

        yield watch


@contextmanager
def step_progress(name: str, *, show: bool | None) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done. `show` None means: if standard error is a terminal."""
    if not is_shown(show):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(name + ": {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as line:
        task = line.add_task("", total=None)
        yield lambda step: line.update(task, description=step)


@contextmanager
def solver_progress(*, show: bool | None) -> Iterator[Callable[[int, float, float], None]]:
    """A line on standard error with the iterations and the residual. `show` None means: if it is a terminal."""
    if not is_shown(show):
        yield lambda step, residual, tolerance: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("solve: {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as line:
        task = line.add_task("first product", total=None)

        def watch(step: int, residual: float, tolerance: float) -> None:
            line.update(
                task, description=f"{counted(step, 'iteration')}, residual {residual:.2e} (until {tolerance:.0e})"
            )

        yield watch


Show = Callable[[float, float, float | None], None]


@contextmanager
def progress_bar(description: str, done: int, total: int, wanted: bool | None) -> Iterator[Show | None]:
    """A function that takes epochs done (and parts of them), the last loss and the last error rate; None without a bar.

    `wanted`: None shows the bar if standard error is a terminal.
    """
    if not is_shown(wanted):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs  loss {task.fields[loss]}  error {task.fields[error]}  left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, completed=done, total=total, loss="-", error="-")

        def show(epochs: float, loss: float, error: float | None) -> None:
            words = "-" if error is None else f"{error:.2%}"
            bar.update(task, completed=epochs, loss=f"{loss:.4f}", error=words)

        yield show
