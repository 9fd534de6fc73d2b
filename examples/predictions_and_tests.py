"""What a kernel says beyond its numbers: expansions of a network, a posterior, scikit-learn, and a test of alignment.

python examples/predictions_and_tests.py
"""

import numpy as np
from sklearn.model_selection import GridSearchCV, cross_val_score

import udlbridge as ub
from udlbridge.estimators import NTKClassifier, NTKRidge

rng = np.random.default_rng(0)

# A network as a polynomial of its parameters: with every degree it is right for a longer way.
model = ub.Model([ub.Dense(2, 30, "tanh"), ub.Dense(30, 1)], dtype="float64")
other = {name: value + 0.1 * rng.standard_normal(value.shape) for name, value in model.params.items()}
x = rng.standard_normal((20, 2))
exact = ub.outputs(model.with_params(other), x, backend="torch")
print("Taylor polynomials of a network, 0.1 away in every parameter:")
for degree in range(4):
    gap = np.abs(ub.taylor_expand(model, degree).outputs(other, x, backend="torch") - exact).max()
    print(f"  degree {degree}: off by {gap:.1e}")

# The posterior of a Gaussian process with the kernel of infinite width: sure near the data, unsure far away.
train = np.linspace(-1, 1, 12)[:, None]
y = np.sin(3 * train)
test = np.array([[0.05], [0.95], [3.0]])
layers = [ub.Dense(1, 64, "erf"), ub.Dense(64, 64, "erf"), ub.Dense(64, 1)]
k = ub.infinite.kernels(layers, np.concatenate([train, test]), w_std=1.5, b_std=0.3).nngp
n = len(train)
found = ub.predict.posterior(k[:n, :n], k[n:, :n], k[n:, n:], y, diag_reg=1e-6)
print(f"posterior of sin 3x, log likelihood {found.log_marginal_likelihood:.1f}:")
for place, mean, deviation in zip(test[:, 0], found.mean[:, 0], np.sqrt(np.diag(found.covariance)), strict=True):
    print(f"  x = {place:5.2f}: {mean:6.3f} +- {deviation:.3f}, in truth {np.sin(3 * place):6.3f}")

# The same kernels in scikit-learn: a grid search for the regularisation, and a cross validation of a classifier.
points = rng.standard_normal((80, 2))
inside = (np.linalg.norm(points, axis=1) < 1.1).astype(int)
search = GridSearchCV(NTKRidge(), {"alpha": [1e-3, 1e-1, 10.0]}, cv=4).fit(points, np.sin(points[:, 0] * 2))
print(f"NTKRidge: best alpha {search.best_params_['alpha']:g}, R2 {search.best_score_:.3f}")
print(f"NTKClassifier of a disc: {cross_val_score(NTKClassifier(), points, inside, cv=4).mean():.0%} right")

# Is the kernel of an untrained network aligned with the labels at all? And with labels in any other order?
kernel = ub.ntk(model, points)
signs = np.where(points[:, 0] > 0, 1, -1)
for name, labels in (("the labels", signs), ("the same, shuffled", rng.permutation(signs))):
    result = ub.alignment_test(kernel, ub.label_kernel(labels), permutations=999, estimator="unbiased", seed=1)
    print(f"{name}: {result}")
