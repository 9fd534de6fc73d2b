"""What a kernel says of a network's training: outputs over time, posteriors, ensembles, and the largest learning rate.

Everything here is NumPy on kernels that were computed before, by any engine; results are float64.

Examples:
    >>> flow = ub.predict.gradient_flow(np.eye(2), np.array([1.0, -1.0]))
    >>> flow.at(np.inf).train.ravel()
    array([ 1., -1.])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ensembles": ["Ensemble", "infinite_ensemble"],
        "flows": ["GradientFlow", "Prediction", "gradient_flow"],
        "posteriors": ["Posterior", "posterior"],
        "rates": ["max_learning_rate"],
        "solvers": ["Solution", "solve"],
        "steps": ["GradientDescent", "gradient_descent"],
    },
)
