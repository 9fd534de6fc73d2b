"""Convolution by hand.

Sources: practicals Convolution_I and _III. A convolution written as loops over everything, against the library's
`Conv2d` in the chosen engine: stride, several channels, several images, with the sizes and the random numbers of the
source, and beyond them other paddings and kernels. Then the derivatives of a small network of convolutions, and one
that is trained on a few MNIST images.
"""

from itertools import product

import numpy as np

import udlbridge as ub
from udlbridge.udl import practicals

# Images (n, channels, height, width), kernels (channels out, height, width), stride and padding. The source has four.
CASES = {
    "one image, one channel": ((1, 1, 4, 6), (1, 3, 3), 1, 1),
    "stride 2": ((1, 1, 12, 10), (1, 3, 3), 2, 1),
    "5 channels to 2": ((1, 5, 4, 6), (2, 3, 3), 1, 1),
    "2 images": ((2, 5, 4, 6), (2, 3, 3), 1, 1),
    "no padding": ((2, 3, 7, 6), (4, 3, 3), 1, 0),
    "padding 2, 5 x 5": ((2, 3, 7, 6), (4, 5, 5), 1, 2),
    "2 x 4, stride 3": ((1, 2, 11, 9), (3, 2, 4), 3, 2),
    "1 x 1": ((2, 3, 4, 5), (4, 1, 1), 1, 0),
}


def convolve(images, kernels, stride, padding):
    """Loops over images, channels, positions and the kernel; zeros around the images."""
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    (n, c_in, height, width), (c_out, _, k_h, k_w) = padded.shape, kernels.shape
    result = np.zeros((n, c_out, (height - k_h) // stride + 1, (width - k_w) // stride + 1))
    for i, o, y, x in np.ndindex(result.shape):
        for c, dy, dx in product(range(c_in), range(k_h), range(k_w)):
            result[i, o, y, x] += padded[i, c, y * stride + dy, x * stride + dx] * kernels[o, c, dy, dx]
    return result


def case(name, backend):
    """The result of the loops and that of the engine."""
    shape, (c_out, *kernel), stride, padding = CASES[name]
    old = np.random.RandomState(1)
    images, kernels = old.normal(size=shape), old.normal(size=(c_out, shape[1], *kernel))
    layer = ub.Conv2d(shape[1], c_out, tuple(kernel), stride=stride, padding=padding, bias=False)
    by_engine = ub.outputs(ub.Model([layer], {"0.weight": kernels}), images, backend=backend)
    return convolve(images, kernels, stride, padding), by_engine


def small_network():
    """A strided convolution, a relu and a readout, with random biases too."""
    layers = [ub.Conv2d(2, 3, 3, "tanh", stride=2, padding=1), ub.Flatten(), ub.Dense(3 * 3 * 3, 2)]
    model = ub.Model(layers, seed=1, dtype="float64")
    old = np.random.RandomState(2)
    return model.with_params({name: value + 0.1 * old.normal(size=value.shape) for name, value in model.params.items()})


def digits(engine):
    """Error (%) of a convolution network trained on 800 MNIST images, on the other 200; and that of the class means."""
    x, y = ub.data.mnist("train", n=1000)
    flat, held = x[:800].reshape(800, -1), x[800:].reshape(200, -1)
    means = np.stack([flat[y[:800] == k].mean(axis=0) for k in range(10)])
    nearest = ((held[:, None] - means) ** 2).sum(-1).argmin(1)
    layers = [ub.Conv2d(1, 8, 5, "relu", stride=2), ub.Conv2d(8, 16, 5, "relu", stride=2), ub.Flatten()]
    model = ub.init.he(ub.Model([*layers, ub.Dense(16 * 4 * 4, 10)]))
    images = x.reshape(-1, 1, 28, 28)
    run = ub.train(
        model, images[:800], y[:800], backend=engine, optimizer=("momentum", {"lr": 0.05, "momentum": 0.9}), epochs=12,
        batch_size=40, validation=(images[800:], y[800:]), threads=1, progress=False,
    )  # fmt: skip
    return 100 * run.errors[-1].validation, 100 * np.mean(nearest != y[800:])


def rows(backend=None):
    found = []
    for name in CASES:
        by_hand, by_engine = case(name, backend)
        found.append(practicals.largest_gap(f"{name}: {' x '.join(map(str, by_hand.shape))}", by_engine, by_hand))
    model = small_network()
    x = np.random.RandomState(3).normal(size=(2, 2, 6, 5))
    step = 1e-5
    for name, block in ub.jacobian(model, x, backend=backend).items():
        differences = np.empty_like(block)
        for index in np.ndindex(model.params[name].shape):
            moved = []
            for sign in (1, -1):
                params = {key: np.array(value) for key, value in model.params.items()}
                params[name][index] += sign * step
                moved.append(ub.outputs(model.with_params(params), x, backend=backend))
            differences[(..., *index)] = (moved[0] - moved[1]) / (2 * step)
        gap = np.abs(differences - block).max()
        found.append(practicals.differences(f"network: gap of derivatives by {name}", 0.0, gap, 1e-9))
    edges = np.array([[[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]]])
    ramp = np.broadcast_to(np.arange(8.0), (1, 1, 6, 8)).copy()
    flat = ub.outputs(ub.Model([ub.Conv2d(1, 1, 3, bias=False)], {"0.weight": edges}), ramp, backend=backend)
    found.append(practicals.largest_gap("edge kernel on a ramp: 8 everywhere", flat, np.full((1, 1, 4, 6), 8.0)))
    error, line = digits(backend)
    return [*found, practicals.below("MNIST: validation error (%), that of class means", line, error)]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(CASES), figsize=(13, 3.4))
    for (above, below), name in zip(axes.T, CASES, strict=True):
        by_hand, by_engine = case(name, backend)
        above.imshow(by_hand[0, 0])
        below.imshow(by_engine[0, 0])
        above.set_title(name, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("by hand")
    axes[1, 0].set_ylabel("engine")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
