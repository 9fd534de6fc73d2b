"""Infinitely wide networks: their kernels, how finite ones approach them, and what they predict.

python examples/infinite_width.py [--engines torch,julia] [--draws 8] [--plot FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np

import udlbridge as ub
from udlbridge.plots.infinite import convergence_figure
from udlbridge.plots.linearization import linearization_figure

parser = argparse.ArgumentParser()
parser.add_argument("--engines", default="torch,reference")
parser.add_argument("--draws", type=int, default=8)
parser.add_argument("--plot", type=Path)
given = parser.parse_args()
engines = given.engines.split(",")
layers = [ub.Dense(1, 64, "erf"), ub.Dense(64, 64, "erf"), ub.Dense(64, 1)]
draw = {"w_std": 1.5, "b_std": 0.3}

# The kernels themselves. Of one input, samples lie on a line.
x = np.linspace(-2, 2, 9)[:, None]
k = ub.infinite.kernels(layers, x, **draw)
print("NNGP, first row:", np.round(k.nngp[0], 3))
print("NTK,  first row:", np.round(k.ntk[0], 3))

# Finite networks come near as 1 / sqrt(width x draws), on every engine.
found = ub.converges(layers, widths=(16, 64, 256), draws=given.draws, x=x, engines=engines, **draw)
print(found)

# What an ensemble of infinitely wide networks says between and beyond five points: mean and standard deviation.
x_train, x_test = np.array([-1.5, -0.8, 0.0, 0.6, 1.4])[:, None], np.linspace(-3, 3, 61)[:, None]
y = np.sin(2 * x_train)
own, across, test = (
    ub.infinite.kernels(layers, a, b, **draw) for a, b in ((x_train, None), (x_test, x_train), (x_test, None))
)
ensemble = ub.predict.infinite_ensemble(own.nngp, across.nngp, test.nngp, y, ntk_train=own.ntk, ntk_test=across.ntk)
deviation = np.sqrt(np.maximum(np.diag(ensemble.covariance), 0))
at = {float(value): index for index, value in enumerate(np.round(x_test[:, 0], 6))}
for value in (-3.0, -0.8, 0.3, 3.0):
    print(f"x = {value:4.1f}: {ensemble.mean[at[value], 0]:6.3f} +- {deviation[at[value]]:.3f}")

# The wider a network, the less its training departs from that of its linearisation.
study = ub.study_linearization(
    ub.Model(layers, dtype="float64"), x_train, y, widths=(32, 128, 512), steps=32, draws=given.draws, engines=engines
)
print(study)
if given.plot is not None:
    given.plot.mkdir(parents=True, exist_ok=True)
    convergence_figure(found, "two hidden layers of erf").savefig(given.plot / "convergence.png")
    linearization_figure(study).savefig(given.plot / "linearization.png")
    print(f"wrote {given.plot / 'convergence.png'} and {given.plot / 'linearization.png'}")
