import io

import matplotlib as mpl
import numpy as np
import oracles
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.diagram import Reliability, draw
from lscal.predictions import Predictions


@pytest.fixture
def statistics(logits: Tensor, labels: Tensor) -> BinnedStatistics:
    predictions = Predictions.from_logits(logits, labels)
    return BinnedStatistics.of(predictions.confidence, predictions.correct)


@pytest.fixture
def gappy() -> Reliability:
    """Two filled bins of fifteen: the fifth, underconfident, and the fourteenth, overconfident."""
    confidence = torch.tensor([0.31, 0.32, 0.88, 0.90, 0.91], dtype=torch.float64)
    return Reliability.of("gappy", BinnedStatistics.of(confidence, torch.tensor([True, False, False, True, False])))


@pytest.mark.parametrize("member", [0, 1, 2])
def test_the_data_agree_with_the_oracle(logits: Tensor, labels: Tensor, member: int):
    predictions = Predictions.from_logits(logits[member], labels)
    reliability = Reliability.of("one", BinnedStatistics.of(predictions.confidence, predictions.correct))
    confidence, correct = oracles.confidence(logits[member].numpy()), oracles.correct(logits[member].numpy(), labels.numpy())
    rows = oracles.binned(confidence, correct)
    assert reliability.title == "one"
    assert reliability.count == tuple(count for count, _, _ in rows)
    assert reliability.confidence == pytest.approx(tuple(c / n if n else None for n, c, _ in rows), abs=1e-13)
    assert reliability.accuracy == pytest.approx(tuple(r / n if n else None for n, _, r in rows), abs=1e-13)
    assert reliability.gap == pytest.approx(confidence.mean() - correct.mean(), abs=1e-13)
    assert reliability.error == pytest.approx(oracles.ece(confidence, correct), abs=1e-13)


def test_a_population_is_pooled_but_for_its_error(statistics: BinnedStatistics, logits: Tensor, labels: Tensor):
    reliability = Reliability.of("all", statistics)
    confidence = np.concatenate([oracles.confidence(z.numpy()) for z in logits])
    correct = np.concatenate([oracles.correct(z.numpy(), labels.numpy()) for z in logits])
    rows = oracles.binned(confidence, correct)
    assert sum(reliability.count) == 303
    assert reliability.count == tuple(count for count, _, _ in rows)
    assert reliability.accuracy == pytest.approx(tuple(r / n if n else None for n, _, r in rows), abs=1e-13)
    assert reliability.gap == pytest.approx(confidence.mean() - correct.mean(), abs=1e-13)
    members = [oracles.METRICS["ece"](z.numpy(), labels.numpy()) for z in logits]
    assert reliability.error == pytest.approx(np.mean(members), abs=1e-13)
    assert abs(reliability.error - oracles.ece(confidence, correct)) > 0.01


def test_an_empty_bin_is_none(gappy: Reliability):
    assert [i for i, accuracy in enumerate(gappy.accuracy) if accuracy is not None] == [4, 13]
    assert [i for i, confidence in enumerate(gappy.confidence) if confidence is not None] == [4, 13]
    assert gappy.count == (0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0)
    assert gappy.accuracy[4] == 0.5
    assert gappy.accuracy[13] == pytest.approx(1 / 3)
    assert gappy.confidence[13] == pytest.approx((0.88 + 0.90 + 0.91) / 3)


def test_a_bin_which_is_always_wrong_is_not_empty():
    confidence = torch.tensor([0.31, 0.32], dtype=torch.float64)
    reliability = Reliability.of("wrong", BinnedStatistics.of(confidence, torch.tensor([False, False])))
    assert reliability.accuracy[4] == 0.0
    assert reliability.accuracy[5] is None


def test_the_bars_are_the_data(gappy: Reliability):
    figure = draw([gappy])
    upper, lower = figure.axes
    bars, gap = (patch.get_data() for patch in upper.patches if isinstance(patch, StepPatch))
    accuracy, confidence = np.zeros(15), np.zeros(15)
    accuracy[[4, 13]] = 0.5, 1 / 3
    confidence[[4, 13]] = 0.315, 2.69 / 3
    np.testing.assert_allclose(bars.values, accuracy, atol=1e-14)
    np.testing.assert_allclose(bars.edges, np.linspace(0, 1, 16), atol=1e-14)
    np.testing.assert_allclose(gap.values, np.maximum(accuracy, confidence), atol=1e-14)
    np.testing.assert_allclose(gap.baseline, np.minimum(accuracy, confidence), atol=1e-14)
    assert [text.get_text() for text in upper.texts] == ["2", "3"]
    (shares,) = (patch.get_data() for patch in lower.patches if isinstance(patch, StepPatch))
    np.testing.assert_allclose(shares.values, np.array(gappy.count) / 5, atol=1e-14)


def test_the_title_says_what_and_how_far(gappy: Reliability):
    (upper, _) = draw([gappy]).axes
    error = (abs(0.63 - 1) + abs(2.69 - 1)) / 5
    assert upper.get_title() == f"gappy\nECE {error:.1%} · confidence - accuracy {(0.63 + 2.69 - 2) / 5:+.1%}"


@pytest.mark.parametrize("count", [1, 3])
def test_diagrams_are_drawn_side_by_side(statistics: BinnedStatistics, count: int):
    figure = draw([Reliability.of(f"model {i}", statistics) for i in range(count)])
    assert isinstance(figure, Figure)
    assert [axes.get_title().partition("\n")[0] for axes in figure.axes[:count]] == [f"model {i}" for i in range(count)]
    assert len(figure.axes) == 2 * count


def test_a_drawing_is_saved_as_png(statistics: BinnedStatistics):
    file = io.BytesIO()
    draw([Reliability.of("all", statistics)]).savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG\r\n\x1a\n")
    file.seek(0)
    pixels = mpl.image.imread(file)
    assert pixels.shape[:2] == (480, 360)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


def test_nothing_global_is_changed(gappy: Reliability):
    figures, parameters, backend = pyplot.get_fignums(), dict(mpl.rcParams), mpl.get_backend()
    draw([gappy]).savefig(io.BytesIO(), format="png")
    assert pyplot.get_fignums() == figures
    assert dict(mpl.rcParams) == parameters
    assert mpl.get_backend() == backend
