"""A stand-in: Gaussian process in √ε on the trials' means."""

from collections.abc import Sequence

import numpy as np

from tracking.evidence import Band
from tracking.records import Outcome


class Fit:
    def __init__(self, process, scale, offset, noise):
        self.process, self.scale, self.offset = process, scale, offset

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], metric: str, low: float, high: float) -> "Fit":
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern

        table = np.array([outcome.metrics[metric] for outcome in outcomes])
        trials, seeds = table.shape
        means = table.mean(1)
        left = table - means[:, None] - table.mean(0) + table.mean()
        freedom = max(1, (trials - 1) * (seeds - 1))
        noise = (left**2).sum() / freedom / seeds
        scale = max(means.std(), 1e-9)
        kernel = ConstantKernel(1, (1e-2, 1e3)) * Matern(0.3, (0.1, 2), nu=2.5)
        process = GaussianProcessRegressor(kernel, alpha=noise / scale**2 + 1e-8)
        x = np.sqrt([[outcome.epsilon] for outcome in outcomes])
        process.fit(x, (means - means.mean()) / scale)
        return cls(process, scale, means.mean(), noise)

    def predict(self, points):
        x = np.sqrt([[point["epsilon"]] for point in points])
        mean, covariance = self.process.predict(x, return_cov=True)
        return mean * self.scale + self.offset, covariance * self.scale**2

    def mean(self, points):
        return self.predict(points)[0]

    def shift(self, points, reference):
        mean, covariance = self.predict([*points, reference])
        variance = np.diag(covariance)[:-1] + covariance[-1, -1] - 2 * covariance[:-1, -1]
        return mean[:-1] - mean[-1], np.sqrt(np.maximum(variance, 0))

    def band(self, grid):
        points = [{"epsilon": e} for e in grid]
        mean, covariance = self.predict(points)
        error = np.sqrt(np.diag(covariance))
        shift, off = self.shift(points, {"epsilon": 0.0})
        rows = (mean, mean - 1.96 * error, mean + 1.96 * error, shift, shift - 1.96 * off, shift + 1.96 * off)
        return Band(tuple(grid), *(tuple(row.tolist()) for row in rows))
