"""The kernel of one network from every engine that this machine has, its spectrum, and whether the engines agree."""

import udlbridge as ub

# The network of the Flux notebook: 784-60-60-10 with sigmoids, then softmax. Weights come from the seed, by NumPy.
layers = [ub.Dense(784, 60, "sigmoid"), ub.Dense(60, 60, "sigmoid"), ub.Dense(60, 10, "sigmoid"), ub.Softmax()]
model = ub.Model(layers, seed=0)
x, y = ub.data.mnist("train", n=10)

for backend in ub.backends.usable():
    k = ub.ntk(model, x, outputs=0, backend=backend)
    print(f"{backend:>10}: K[0, 0] = {k[0, 0]:.6g}, {ub.spectrum(k).negative} negative eigenvalues")

print()
print(ub.spectrum(k, rank=model.n_params))
print()
print(ub.check(model, x))
