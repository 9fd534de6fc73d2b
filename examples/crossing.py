"""A PyTorch network with a forward of its own as a graph: on two engines, through a file and back, proved equal.

What it leaves in a folder, `python examples/crossing.py FOLDER`, is what examples/crossing.jl takes to Flux.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import udlbridge as ub


class Net(nn.Module):
    """A residual network in small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = torch.relu(h + self.b(torch.relu(self.a(h))))
        return self.head(h.mean(dim=(2, 3)))


torch.manual_seed(0)
module, x = Net().double().eval(), torch.randn(4, 3, 8, 8, dtype=torch.float64)

graph = ub.from_torch(module, x)  # parameters keep their names, the number of samples is open
print(graph)
print(ub.check(graph, x, backends=["torch", "reference"]))  # torch's functions against derivatives written by hand

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
graph.save(folder / "net.safetensors")
back = ub.to_torch(ub.Graph.load(folder / "net.safetensors"))
back.load_state_dict(module.state_dict(), strict=False)
print(f"there and back: outputs differ by {(back(x) - module(x)).abs().max():.1e}")

for name, value in {"x": x.numpy(), "outputs": ub.outputs(graph, x), "kernel": ub.ntk(graph, x)}.items():
    value.tofile(folder / f"{name}.bin")  # for Julia: the bytes of (4, 3, 8, 8) are those of its (8, 8, 3, 4)
