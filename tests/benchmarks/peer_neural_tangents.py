"""neural-tangents with structured derivatives (implementation 3), in its own environment, for `kernels.py`.

For every line "go" on standard input it computes the kernel once and prints the seconds; "save" writes a corner of it.
"""

import os
import sys
import time

folder, threads = sys.argv[1], sys.argv[2]
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if int(threads) > 1 else 'false'}"
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[: int(threads)]))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402

arrays = np.load(os.path.join(folder, "in.npz"))
# (in, out), as the library's own layers have it: its structural rules look for this product.
params = [(jnp.asarray(arrays[f"p{2 * i}"].T.copy()), jnp.asarray(arrays[f"p{2 * i + 1}"])) for i in range(3)]
x = jnp.asarray(arrays["x"])


def network(values, images):
    """The 784-60-60-10 network; output 0 alone."""
    for weight, bias in values:
        images = jax.nn.sigmoid(jnp.dot(images, weight) + bias)
    return jax.nn.softmax(images)[:, :1]


kernel = jax.jit(
    nt.empirical_ntk_fn(
        network, trace_axes=(-1,), vmap_axes=0, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES
    )
)
for line in sys.stdin:
    if line.strip() == "save":
        np.save(os.path.join(folder, "out.npy"), np.asarray(result[:500, :500]))
        print(0.0, flush=True)
        continue
    start = time.perf_counter()
    result = kernel(x, None, params)
    result.block_until_ready()
    print(time.perf_counter() - start, flush=True)
