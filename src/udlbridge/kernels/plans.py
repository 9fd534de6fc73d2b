"""What a kernel will cost, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from udlbridge.backends.jobs import Method
from udlbridge.backends.reduction import Outputs
from udlbridge.displays import Displayed
from udlbridge.kernels.tiling import Grid
from udlbridge.options import show_bytes, show_seconds
from udlbridge.texts import counted


@dataclass(frozen=True, repr=False)
class Plan(Displayed):
    """How a kernel will be computed, and what that is predicted to cost: plain data, as the manifest of a store has it.

    `flops` counts a multiply-add as two operations. `prepared` counts the samples that pass through the network, with
    those that do so again since the factors of their block were not kept; each takes `sample_flops`. `ram_bytes` is the
    predicted peak over what the process holds already (without the data, and without the result where that is an
    array). `seconds` and `gflops` come from a calibration of about two seconds; they are None without one.

    Examples:
        >>> plan = ub.plan(ub.models.lenet5(), 60_000, sample_shape=(1, 28, 28), calibrate=False)
        >>> isinstance(plan, ub.Plan), plan.n, plan.symmetric
        (True, 60000, True)
    """

    n: int
    m: int
    symmetric: bool
    outputs: Outputs
    dtype: str
    backend: str
    method: Method
    tile: int
    cached_blocks: int
    flops: float
    prepared: int
    sample_flops: float
    memory: int
    ram_bytes: int
    disk_bytes: int
    threads: int | None = None
    gflops: float | None = None
    seconds: float | None = None

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return Grid(self.n, self.m, self.tile, self.symmetric)

    @property
    def entry_flops(self) -> float:
        """Operations for one entry of the kernel, besides those of passes."""
        return (self.flops - self.prepared * self.sample_flops) / self.grid.pairs

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        shape = f"{self.n:,} x {self.m:,}" + (", lower triangle" if self.symmetric else "")
        lines = [
            f"kernel   {shape}, outputs={self.outputs!r}, {self.dtype}, on {self.backend}",
            f"method   {self.method}, {counted(self.grid.count, 'tile')} of {self.tile}",
            f"work     {self.flops / 1e9:,.0f} GFLOP, {counted(self.prepared, 'sample')} through the network",
            f"memory   {show_bytes(self.ram_bytes)} of {show_bytes(self.memory)} allowed",
            f"disk     {show_bytes(self.disk_bytes)}",
        ]
        if self.seconds is not None and self.gflops is not None:
            lines.append(f"time     about {show_seconds(self.seconds)} at {self.gflops:,.0f} GFLOP/s (calibrated)")
        return "\n".join(lines)

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        lines = [line.split(maxsplit=1) for line in str(self).splitlines()]
        return [{"": name, "planned": words} for name, words in lines]
