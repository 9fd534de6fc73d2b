"""The random numbers of `torch.manual_seed(seed)` on a CPU, drawn by NumPy.

Both have the Mersenne twister MT19937 and seed it in the same way, so that what a program in PyTorch drew can be drawn
where torch is not, bit for bit, as float32 and as the orders of its `DataLoader`.

Source: Matsumoto and Nishimura (1998) for the generator. How torch turns its bits into numbers was found by experiment,
and is tested against torch itself.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Int

from udlbridge.options import checked_count


class TorchGenerator:
    """Draws what torch draws on a CPU after `torch.manual_seed(seed)`, in the same order.

    Args:
        seed: a whole number; as in torch, its last 32 bits count.

    Raises:
        OptionError: a seed that is not a whole number of at least 0.
    """

    def __init__(self, seed: int) -> None:
        # torch's generator is this legacy one of NumPy's.
        self._bits = np.random.RandomState(checked_count("seed", seed, 0) & 0xFFFFFFFF)

    def _words(self, count: int) -> np.ndarray:
        return self._bits.randint(0, 2**32, size=count, dtype=np.uint32)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Float32[np.ndarray, "*shape"]:
        """`torch.empty(shape).uniform_(low, high)`."""
        start, stop = np.float32(low), np.float32(high)
        unit = (self._words(math.prod(shape)) & 0xFFFFFF) * 2.0**-24
        # torch multiplies and adds with one rounding.
        return (unit * float(stop - start) + float(start)).astype(np.float32).reshape(shape)

    def kaiming_uniform(self, shape: tuple[int, ...], slope: float = 0.0) -> Float32[np.ndarray, "*shape"]:
        """`torch.nn.init.kaiming_uniform_(torch.empty(shape), a=slope)`: He's variance for leaky relu units.

        Args:
            shape: of a weight, (out, in, *kernel).
            slope: of the units below zero; 0 is relu.

        Source: He, Zhang, Ren, Sun (2015), equation 15.
        """
        gain = math.sqrt(2.0 / (1 + slope**2))
        bound = math.sqrt(3.0) * (gain / math.sqrt(math.prod(shape[1:])))
        return self.uniform(shape, -bound, bound)

    def permutation(self, n: int) -> Int[np.ndarray, " n"]:
        """`torch.randperm(n)`: from the first place on, each is exchanged with one that is drawn from it onwards."""
        order = list(range(n))
        for position, word in enumerate(self._words(max(n - 1, 0)).tolist()):
            other = position + word % (n - position)
            order[position], order[other] = order[other], order[position]
        return np.array(order, dtype=np.int64)

    def loader_order(self, n: int) -> Int[np.ndarray, " n"]:
        """The order in which `DataLoader(data, shuffle=True)` goes through `n` samples, once.

        It draws a seed for its workers, whether it has any or not, and one for a generator of its own.
        """
        self._whole()
        return TorchGenerator(self._whole()).permutation(n)

    def _whole(self) -> int:
        """`torch.empty((), dtype=torch.int64).random_()`."""
        high, low = self._words(2).tolist()
        return (high << 32 | low) % 2**63
