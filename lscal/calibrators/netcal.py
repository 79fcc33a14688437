"""netcal behind one adapter: probabilities and answers in, plain numbers out; what it prints and changes
stays inside.

netcal's binary fits alone are used for curves, one class at a time, on float64: its several-class wrapper
does the same, but prints, leaves out missing classes and takes two columns for a binary problem. It is
imported when it is used.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Answers = NDArray[np.int64]


@contextmanager
def silenced() -> Iterator[None]:
    """Run netcal without its prints, its progress bars and their thread, and the DeprecationWarning of each
    scaling fit.

    Streams, warnings filters and torch's thread count are restored. One thread, since these fits are
    thousands of passes over little data. Imports belong before it: a library keeps the standard error it
    finds.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    threads, interval = torch.get_num_threads(), tqdm.monitor_interval
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        tqdm.monitor_interval = interval
        torch.set_num_threads(threads)


def histogram_curve(probability: Array, occurs: Answers) -> tuple[Array, Array]:
    """Knots and values of netcal's histogram binning: 10 bins of equal width, (a, b]; an empty one has its
    middle as value.
    """
    with warnings.catch_warnings():
        from netcal.binning import HistogramBinning
    with silenced():
        fitted = HistogramBinning().fit(probability, occurs)
    return steps(fitted._bin_bounds[0][1:-1], fitted._bin_map)


def bbq_curve(probability: Array, occurs: Answers) -> tuple[Array, Array]:
    """Knots and values of netcal's BBQ: a weighted mean of histograms of 1 to about 10·N^(1/3) bins, by their
    BIC.

    The mean of step functions is one step function, on the edges of all of them.
    """
    with warnings.catch_warnings():
        from netcal.binning import BBQ
    with silenced():
        fitted = BBQ().fit(probability, occurs)
    edges = np.unique(
        np.concatenate([histogram._bin_bounds[0][1:-1] for histogram in fitted._binning_models])
    )
    rightmost = np.append(edges, 1.0)  # the last point of each step
    values = np.zeros(len(rightmost))
    for weight, histogram in zip(fitted._model_scores, fitted._binning_models, strict=True):
        values += weight * histogram._bin_map[np.searchsorted(histogram._bin_bounds[0][1:-1], rightmost)]
    return steps(edges, values)


def steps(edges: Array, values: Array) -> tuple[Array, Array]:
    """A step function, constant on (a, b] between edges, as a piecewise linear one: each edge e becomes e and
    the next float.
    """
    if len(edges) == 0:
        return np.array([0.0, 1.0]), np.repeat(values, 2)
    return np.stack([edges, np.nextafter(edges, 1)], 1).ravel(), np.repeat(values, 2)[1:-1]


def beta_weights(probabilities: NDArray[np.float64], answers: Answers) -> tuple[Array, Array]:
    """The weights (K, 2) of log p and -log(1-p), and the bias (K,), of netcal's beta calibration.

    With two classes netcal fits the second one's odds alone; the first then has weights and bias 0. pyro's
    global parameters, which netcal clears, are restored.
    """
    with warnings.catch_warnings():
        import pyro
        from netcal.scaling import BetaCalibration
    parameters = pyro.get_param_store().get_state()
    try:
        with silenced():
            sites = BetaCalibration().fit(probabilities, answers, tensorboard=False)._sites
    finally:
        pyro.get_param_store().set_state(parameters)
    weights, bias = sites["weights"]["values"].reshape(-1, 2), sites["bias"]["values"]
    if len(bias) == 1:
        return np.concatenate([np.zeros((1, 2)), weights]), np.concatenate([np.zeros(1), bias])
    return weights, bias
