"""Regular against slow learning of features, on MNIST 8 and 9: errors, alignments, and a plot.

    python examples/alignment.py [--backends torch,julia] [--n 160]

Needs the MNIST files (see UDLBRIDGE_DATA) or a network to fetch them, but for --n: that many images of the sample that
comes with the package, a quarter of them to test on.
"""

import argparse

import numpy as np

import udlbridge as ub
from udlbridge.plots.training import study_figure

DIGITS = [8, 9]

parser = argparse.ArgumentParser()
parser.add_argument("--backends", default="torch")
parser.add_argument("--n", type=int)
given = parser.parse_args()
backends = given.backends.split(",")

# The building blocks, on a hundred images: how near are the layers of an untrained network to the labels?
x, y = ub.data.mnist("train", n=100, digits=DIGITS)
labels = ub.label_kernel(np.where(y == 9, 1.0, -1.0))
start = ub.models.hidden_relu(width=500)
for layer, value in enumerate(ub.layer_alignments(start, x, labels, backend=backends[0])):
    print(f"layer {layer}: alignment with the labels {value:.3f}")
print(f"NTK:     alignment with the labels {ub.alignment(ub.ntk(start, x, backend=backends[0]), labels):.3f}")

# One training, with a slow hidden layer: how far does its NTK move?
run = ub.train(
    start,
    x,
    (y == 9).astype(int),
    backend=backends[0],
    optimizer=("adam", {"lr": 1e-3}),
    lr_groups={"0.*": 1e-4},
    epochs=10,
    batch_size=20,
    callbacks=[ub.Probe(x, every=10, quantities=("ntk_change",))],
)
print(f"training error {run.errors[0].train:.0%} -> {run.errors[-1].train:.0%}")
print("change of the NTK every ten steps:", np.round(run.records["probe"]["ntk_change"], 3))

# The study itself.
images, digits = ub.data.mnist("train", n=given.n, digits=DIGITS)
if given.n is None:
    learn, test = (images, digits), ub.data.mnist("test", digits=DIGITS)
else:
    cut = given.n * 3 // 4
    learn, test = (images[:cut], digits[:cut]), (images[cut:], digits[cut:])
study = ub.study_alignment(learn, test, backends=backends, source="MNIST")
print(study)
study_figure(study).savefig("alignment.png")
print("wrote alignment.png")
