"""A progress bar with loss, error and remaining time, on a terminal; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[float, float, float | None], None]


@contextmanager
def progress_bar(description: str, done: int, total: int, wanted: bool | None) -> Iterator[Show | None]:
    """A function that takes epochs done (and parts of them), the last loss and the last error rate; None without a bar.

    `wanted`: None shows the bar if standard error is a terminal.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if wanted is False or (wanted is None and not console.is_terminal):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs  loss {task.fields[loss]}  error {task.fields[error]}  left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, completed=done, total=total, loss="-", error="-")

        def show(epochs: float, loss: float, error: float | None) -> None:
            words = "-" if error is None else f"{error:.2%}"
            bar.update(task, completed=epochs, loss=f"{loss:.4f}", error=words)

        yield show
