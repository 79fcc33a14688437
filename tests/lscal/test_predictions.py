import math
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal import predictions as module
from lscal.binning import BinnedStatistics, equal_mass_bounds
from lscal.metrics import METRICS
from lscal.predictions import Predictions, row_max

INF, NAN = math.inf, math.nan
COLUMNS = [
    "confidence",
    "correct",
    "log_confidence",
    "ranking",
    "nll",
    "brier",
    "spherical",
    "rank",
    "predicted",
]
every = pytest.mark.parametrize("name", COLUMNS)


def column(name: str, predictions: Predictions) -> Tensor:
    return getattr(predictions, name)


ORACLES = {
    "confidence": lambda z, y: oracles.confidence(z),
    "correct": oracles.correct,
    "log_confidence": lambda z, y: oracles.log_confidence(z),
    "ranking": lambda z, y: oracles.ranking(z),
    "nll": oracles.nlls,
    "brier": oracles.briers,
    "spherical": oracles.sphericals,
    "rank": oracles.ranks,
    "predicted": lambda z, y: np.array([row.argmax() for row in z]),
}


@pytest.mark.parametrize(
    ("examples", "classes"), [(101, 7), (1, 2), (97, 2), (40, 63), (40, 64), (40, 65), (1031, 3), (2053, 10)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_columns_agree_with_the_oracle(examples: int, classes: int, dtype: torch.dtype, tolerance: float):
    logits, labels = population(seed=41, examples=examples, classes=classes)
    logits = logits.to(dtype)[2]
    predictions = Predictions.from_logits(logits, labels)
    for name in COLUMNS:
        values = column(name, predictions)
        assert values.shape == (examples,)
        assert values.dtype == {"correct": torch.bool, "predicted": torch.int64}.get(name, torch.float64)
        expected = ORACLES[name](logits.double().numpy(), labels.numpy())
        own = tolerance + (module.RANKING_UNIT[dtype] + 1e-10 if name == "ranking" else 0)  # which both round
        np.testing.assert_allclose(values.double().numpy(), expected, atol=own, rtol=own, err_msg=name)


def test_what_is_counted(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    assert (predictions.member, predictions.examples, predictions.classes) == ((3,), 101, 7)
    assert Predictions.from_logits(logits[0], labels).member == ()
    assert predictions.distribution is None


@every
def test_a_population_is_its_members(logits: Tensor, labels: Tensor, name: str):
    grid = torch.stack([logits, logits.flip(0) * 1.1])
    together = column(name, Predictions.from_logits(grid, labels))
    assert together.shape == (2, 3, 101)
    for i in range(2):
        for j in range(3):
            assert torch.equal(together[i, j], column(name, Predictions.from_logits(grid[i, j], labels)))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(logits: Tensor, labels: Tensor, dtype: torch.dtype, name: str):
    narrow = logits.to(dtype)
    values = column(name, Predictions.from_logits(narrow, labels))
    assert torch.equal(values, column(name, Predictions.from_logits(narrow.float(), labels)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_labels_of_any_integer_type(logits: Tensor, labels: Tensor, dtype: torch.dtype):
    assert torch.equal(
        Predictions.from_logits(logits, labels.to(dtype)).nll, Predictions.from_logits(logits, labels).nll
    )


# ---- layout of memory
# --------------------------------------------------------------------------------------------------


def with_strides(logits: Tensor) -> dict[str, Tensor]:
    """The same numbers, laid out in other ways."""
    wide = torch.full((*logits.shape[:-1], 2 * logits.shape[-1]), NAN, dtype=logits.dtype)
    wide[..., ::2] = logits
    long = torch.full((logits.shape[0], 3 * logits.shape[1], logits.shape[2]), NAN, dtype=logits.dtype)
    long[:, 1::3] = logits
    return {
        "class before example": logits.transpose(1, 2).contiguous().transpose(1, 2),
        "example before member": logits.transpose(0, 1).contiguous().transpose(0, 1),
        "every second class": wide[..., ::2],
        "every third example": long[:, 1::3],
        "expanded": logits[:1].expand(3, -1, -1),
    }


@pytest.mark.parametrize("layout", with_strides(torch.zeros(1, 1, 1)))
@pytest.mark.parametrize("classes", [7, 64, 65])
def test_the_layout_of_memory_does_not_matter(layout: str, classes: int):
    logits, labels = population(seed=42, examples=70, classes=classes)
    for dtype in (torch.float32, torch.float64):
        strided = with_strides(logits.to(dtype))[layout]
        plain = strided.clone(memory_format=torch.contiguous_format)
        assert layout == "expanded" or not strided.is_contiguous()
        predictions, expected = (Predictions.from_logits(own, labels) for own in (strided, plain))
        for name in COLUMNS:
            assert torch.equal(column(name, predictions), column(name, expected)), name


@pytest.mark.parametrize("classes", [2, 5, 7, 10, 16, 33, 63, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_ties_wherever_they_lie(classes: int, dtype: torch.dtype):
    """Rounding must not tell equal rows apart by their place in a block."""
    row = torch.randn(classes, generator=torch.Generator().manual_seed(classes), dtype=dtype)
    rows, labels = row.expand(1037, classes), torch.zeros(1037, dtype=torch.int64)
    for logits in (rows, rows.contiguous(), rows.T.contiguous().T):
        for name in ("confidence", "log_confidence", "ranking", "nll", "brier"):
            assert len(column(name, Predictions.from_logits(logits, labels)).unique()) == 1


@every
def test_the_logits_may_require_a_gradient(logits: Tensor, labels: Tensor, name: str):
    values = column(name, Predictions.from_logits(logits.clone().requires_grad_(), labels))
    assert not values.requires_grad
    assert torch.equal(values, column(name, Predictions.from_logits(logits, labels)))


def test_the_input_is_left_alone(logits: Tensor, labels: Tensor):
    before = logits.clone(), labels.clone()
    predictions = Predictions.from_logits(logits, labels)
    for name in COLUMNS:
        column(name, predictions)
    assert torch.equal(logits, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("size", [50, 707, 1500])
@pytest.mark.parametrize("kind", ["logits", "masked", "probabilities", "calibrated"])
def test_the_size_of_blocks_does_not_matter(
    logits: Tensor, labels: Tensor, size: int, kind: str, monkeypatch: pytest.MonkeyPatch
):
    def made() -> Predictions:
        if kind == "probabilities":
            return Predictions.from_probabilities(logits.softmax(-1), labels)
        predictions = Predictions.from_logits(logits, labels, mask=None if kind == "logits" else labels != 3)
        return predictions.calibrated(lambda z: z / 1.3) if kind == "calibrated" else predictions

    whole, read = made(), Predictions.blocks
    expected = [column(name, whole) for name in COLUMNS]
    blocks = []

    def small(self: Predictions, _: int = 0):
        for block in read(self, size):
            blocks.append(block)
            yield block

    monkeypatch.setattr(Predictions, "blocks", small)
    parts = made()
    for name, values in zip(COLUMNS, expected, strict=True):
        assert_close(column(name, parts), values, atol=1e-15, rtol=0)
    assert len(blocks) > 3


def test_blocks_read_each_example_of_each_member_once(logits: Tensor, labels: Tensor):
    for size in (1, 10, 707, 708, 1414, 5000):
        seen = torch.zeros(3, 101, dtype=torch.int64)
        for members, rows, block in Predictions.from_logits(logits, labels).blocks(size):
            seen[members, rows] += 1
            assert torch.equal(block, logits[members, rows])
            assert block.numel() <= max(size, 7)
        assert (seen == 1).all()


def test_the_limits_on_blocks_are_used(logits: Tensor, labels: Tensor):
    sizes = [
        block.numel()
        for *_, block in Predictions.from_logits(
            torch.zeros(3, 90_000, 7), torch.zeros(90_000).long()
        ).blocks()
    ]
    assert module.BLOCK / 2 < max(sizes) <= module.BLOCK
    assert sum(sizes) == 3 * 90_000 * 7


@pytest.mark.parametrize("classes", [2, 3, 10, 63, 64, 65, 200])
@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_of_each_row(classes: int, rows: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(rows + classes)
    block = torch.randn(2, rows, classes, generator=generator, dtype=dtype) - 5
    block[torch.rand(block.shape, generator=generator) < 0.3] = -INF
    block[0, rows // 2] = -INF
    for column in (0, classes // 2, classes - 1):
        block[1, torch.randint(rows, (1,), generator=generator), column] = NAN
    for layout in (block, block.transpose(1, 2).contiguous().transpose(1, 2), block[1]):
        np.testing.assert_array_equal(row_max(layout).numpy(), layout.numpy().max(-1))


def test_a_file_larger_than_memory_is_scored_batch_by_batch(tmp_path: Path, logits: Tensor, labels: Tensor):
    """The sums of batches of a mapped file are those of the whole."""
    np.save(tmp_path / "logits.npy", logits[1].float().numpy())
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r+")
    whole = Predictions.from_logits(logits[1].float(), labels)
    parts = [
        Predictions.from_logits(torch.from_numpy(mapped[start : start + 40]), labels[start : start + 40])
        for start in range(0, 101, 40)
    ]
    assert sum(part.examples for part in parts) == 101
    for name in COLUMNS:
        assert torch.equal(torch.cat([column(name, part) for part in parts]), column(name, whole))
    nll = sum(part.examples * METRICS["nll"].function(part) for part in parts) / 101
    assert_close(nll, METRICS["nll"].function(whole), atol=1e-14, rtol=0)
    first, *rest = [BinnedStatistics.of(part.confidence, part.correct) for part in parts]
    assert_close(
        sum(rest, start=first).calibration_error(), METRICS["ece"].function(whole), atol=1e-15, rtol=0
    )
    bounds = equal_mass_bounds(whole.confidence)
    first, *rest = [BinnedStatistics.of(part.confidence, part.correct, bounds=bounds) for part in parts]
    assert_close(
        sum(rest, start=first).calibration_error(),
        METRICS["equal_mass_ece"].function(whole),
        atol=1e-15,
        rtol=0,
    )


# ---- extremes
# --------------------------------------------------------------------------------------------------


def test_saturated_confidences_are_told_apart_by_their_logarithm():
    logits = torch.tensor([[0.3, 38.3, -0.7], [0.0, 50.0, 2.0], [300.0, -0.1, -INF]], dtype=torch.float64)
    predictions = Predictions.from_logits(logits, torch.tensor([1, 0, 0]))
    assert predictions.confidence.tolist() == [1.0, 1.0, 1.0]
    others = [math.exp(-38) + math.exp(-39), math.exp(-50) + math.exp(-48), math.exp(-300.1)]
    assert predictions.log_confidence.tolist() == pytest.approx(
        [-math.log1p(other) for other in others], rel=1e-12, abs=0
    )
    assert predictions.nll[1] == pytest.approx(50)


@pytest.mark.parametrize(
    ("dtype", "gaps"), [(torch.float32, [17, 20, 40, 60, 80]), (torch.float64, [37, 40, 100, 300, 700])]
)
def test_the_logarithm_of_saturated_confidences(dtype: torch.dtype, gaps: list[int]):
    logits = torch.zeros(len(gaps), 4, dtype=dtype)
    logits[:, 2] = torch.tensor(gaps, dtype=dtype)
    predictions = Predictions.from_logits(logits, torch.full((len(gaps),), 2))
    assert predictions.confidence.min() > 1 - 2e-7
    assert predictions.log_confidence.tolist() == pytest.approx(
        [-math.log1p(3 * math.exp(-gap)) for gap in gaps], rel=1e-5, abs=0
    )
    assert_close(predictions.nll, -predictions.log_confidence, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_saturated_confidences_are_ranked_by_their_gap(dtype: torch.dtype):
    """Far beyond what any float between 0 and 1, or its logarithm, could say."""
    gaps = torch.tensor([1, 8, 40, 41, 88, 104, 150, 400, 744, 746, 1000, 20_000], dtype=dtype)
    logits = torch.zeros(len(gaps), 4, dtype=dtype)
    logits[:, 2] = gaps
    predictions = Predictions.from_logits(logits, torch.full((len(gaps),), 2))
    assert predictions.ranking.tolist() == pytest.approx(
        (gaps.double() - math.log(3)).tolist(), rel=1e-6, abs=4e-6
    )
    assert (predictions.ranking.diff() > 0).all()


def test_certainty_ranks_above_all():
    logits = torch.tensor([[0.3, -INF, -INF], [0.3, 0.1, -INF], [2000.0, 0.0, -INF]], dtype=torch.float64)
    assert Predictions.from_logits(
        logits, torch.zeros(3, dtype=torch.int64)
    ).ranking.tolist() == pytest.approx([INF, 0.2, 2000])
    p = torch.tensor([[0.0, 1.0], [0.2, 0.8]], dtype=torch.float64)
    assert Predictions.from_probabilities(
        p, torch.zeros(2, dtype=torch.int64)
    ).ranking.tolist() == pytest.approx([INF, math.log(4)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.01, 1, 10])
def test_the_order_of_the_classes_splits_no_ties(dtype: torch.dtype, scale: float):
    """The same numbers in another order have sums that round differently; a quarter of such rows used to be
    no ties.
    """
    generator = torch.Generator().manual_seed(12)
    rows = (scale * torch.randn(150, 10, generator=generator, dtype=torch.float64)).to(dtype)
    orders = [torch.randperm(10, generator=generator) for _ in range(4)]
    logits = torch.stack([rows[:, order] for order in orders])
    labels = torch.zeros(150, dtype=torch.int64)
    both = [
        Predictions.from_logits(logits, labels),
        Predictions.from_probabilities(logits.softmax(-1), labels),
    ]
    for predictions in both if scale < 10 else both[:1]:  # the sum of probabilities near 1 is noise itself
        split = (predictions.ranking != predictions.ranking[0]).any(0).double().mean()
        assert float(split) <= (0.07 if dtype == torch.float32 else 0)


def test_extremes_of_the_ranges():
    z = torch.tensor([[1000.0, 0.0, -3.0], [1000.0, 0.0, -3.0], [0.7, 0.7, 0.7]], dtype=torch.float64)
    predictions = Predictions.from_logits(z, torch.tensor([0, 1, 2]))
    assert predictions.nll.tolist() == pytest.approx([0, 1000, math.log(3)])
    assert predictions.brier.tolist() == pytest.approx([0, 2, 2 / 3])
    assert predictions.spherical.tolist() == pytest.approx([1, 0, 1 / math.sqrt(3)])
    assert predictions.confidence.tolist() == pytest.approx([1, 1, 1 / 3])
    assert predictions.rank.tolist() == [0, 1, 0]


@pytest.mark.parametrize("shift", [-3e4, 1e5])
def test_a_constant_added_to_all_logits_changes_nothing(logits: Tensor, labels: Tensor, shift: float):
    rounded = (logits * 64).round() / 64
    for name in COLUMNS:
        assert_close(
            column(name, Predictions.from_logits(rounded + shift, labels)),
            column(name, Predictions.from_logits(rounded, labels)),
        )


def test_scores_are_never_negative():
    """Σ_k (p_k - onehot_k)² as a difference of sums is in danger of it."""
    generator = torch.Generator().manual_seed(5)
    for scale in (1, 4, 12, 25):
        logits = scale * torch.randn(20_000, 5, generator=generator)
        for predictions in (
            Predictions.from_logits(logits, logits.argmax(-1)),
            Predictions.from_probabilities(logits.softmax(-1), logits.argmax(-1)),
        ):
            assert predictions.brier.min() >= 0
            assert predictions.nll.min() >= 0
            assert predictions.spherical.max() <= 1
            assert predictions.log_confidence.max() <= 0
            assert predictions.confidence.max() <= 1


def test_a_masked_class_has_probability_zero():
    masked = torch.tensor([[1.2, -INF, 0.4, 0.9], [-INF, -INF, -INF, 0.5]], dtype=torch.float64)
    predictions = Predictions.from_logits(masked, torch.tensor([2, 3]))
    without = Predictions.from_logits(masked[:1, [0, 2, 3]], torch.tensor([1]))
    for name in ("confidence", "log_confidence", "ranking", "nll", "brier", "spherical", "rank"):
        assert column(name, predictions)[0] == pytest.approx(float(column(name, without)[0]), abs=1e-15)
    assert predictions.confidence[1] == 1
    assert predictions.nll[1] == 0
    assert predictions.correct.tolist() == [False, True]


def test_a_masked_label_is_infinitely_surprising():
    predictions = Predictions.from_logits(
        torch.tensor([[1.2, -INF, 0.4]], dtype=torch.float64), torch.tensor([1])
    )
    p = oracles.softmax(np.array([[1.2, 0.4]]))[0]
    assert predictions.nll.tolist() == [INF]
    assert predictions.brier.tolist() == pytest.approx([1 + (p**2).sum()])
    assert predictions.spherical.tolist() == [0]
    assert predictions.rank.tolist() == [2]


# ---- ties
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 5, 64, 100])
def test_of_equal_classes_the_first_is_predicted(classes: int):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randint(0, 3, (500, classes), generator=generator).double()
    labels = torch.randint(classes, (500,), generator=generator)
    first = torch.from_numpy(logits.numpy().argmax(1))
    for own in (logits, logits.float(), 5e4 * logits, logits - 1e4):
        predictions = Predictions.from_logits(own, labels)
        assert torch.equal(predictions.predicted, first)
        assert torch.equal(predictions.correct, first == labels)
    assert 0 < (first == labels).sum() < 500


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_two_equal_probabilities_which_sum_to_more_than_one(dtype: torch.dtype):
    """As much more as rounding to the type is allowed."""
    excess = module.SUM_TOLERANCE[dtype] / 2
    row = torch.tensor([0.0, 0.5 + 0.9 * excess, 0.5 + 0.9 * excess], dtype=torch.float64)
    predictions = Predictions.from_probabilities(row.to(dtype).expand(3, 3), torch.tensor([0, 1, 2]))
    assert predictions.confidence.min() > 0.5
    assert predictions.correct.tolist() == [False, True, False]


# ---- probabilities
# --------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_probabilities_are_scored_like_their_logits(
    logits: Tensor, labels: Tensor, name: str, dtype: torch.dtype, tolerance: float
):
    values = column(name, Predictions.from_probabilities(logits.softmax(-1).to(dtype), labels))
    expected = column(name, Predictions.from_logits(logits, labels))
    if name == "ranking":
        tolerance *= 1e3  # the odds of what is left of 1
    assert_close(values, expected, atol=tolerance, rtol=tolerance)


def test_probabilities_are_not_guessed_to_be_logits():
    """Values of 1.0000001 and -1e-9 are rounding; peers pass the whole batch through softmax."""
    p = torch.tensor([[1.0000001, -1e-9, 0.0], [0.2, 0.5, 0.3]], dtype=torch.float64)
    predictions = Predictions.from_probabilities(p, torch.tensor([0, 1]))
    assert predictions.confidence.tolist() == [1, 0.5]
    assert predictions.nll.tolist() == pytest.approx([0, -math.log(0.5)])
    assert predictions.brier.tolist() == pytest.approx([0, 0.04 + 0.25 + 0.09])


def test_no_probability_at_the_label_is_infinitely_surprising():
    p = torch.tensor([[0.0, 1.0], [1.0 + 1e-9, -1e-9]], dtype=torch.float64)
    predictions = Predictions.from_probabilities(p, torch.tensor([0, 1]))
    assert predictions.nll.tolist() == [INF, INF]
    assert predictions.brier.tolist() == pytest.approx([2, 2])
    assert predictions.spherical.tolist() == [0, 0]
    assert predictions.rank.tolist() == [1, 1]


def test_equal_probabilities_at_the_top_are_ties():
    """What the others are, and how their sum rounds, does not matter."""
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(6)
        rest = 0.3 * torch.rand(400, 6, generator=generator, dtype=torch.float64).softmax(-1)
        p = torch.cat([rest, torch.full((400, 1), 0.7, dtype=torch.float64)], -1).to(dtype)
        predictions = Predictions.from_probabilities(p, torch.zeros(400, dtype=torch.int64))
        assert len(predictions.log_confidence.unique()) == len(predictions.ranking.unique()) == 1
        assert float(predictions.log_confidence[0]) == pytest.approx(math.log(p[0, -1].item()), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_probabilities_are_told_apart_by_the_others(dtype: torch.dtype):
    below = 1 - torch.finfo(dtype).eps / 2
    p = torch.tensor(
        [[1.0, 1e-30, 1e-20], [1.0, 1e-30, 1e-25], [1.0, 0.0, 0.0], [below, 0.0, 0.0], [0.9, 0.1, 0.0]],
        dtype=dtype,
    )
    predictions = Predictions.from_probabilities(p, torch.zeros(5, dtype=torch.int64))
    assert predictions.ranking.argsort().tolist() == [4, 3, 0, 1, 2]
    assert (predictions.log_confidence.diff()[:2] >= 0).all()
    assert predictions.confidence[2:4].tolist() == [1, below]


def test_log_probabilities_pass_through_a_calibrator(logits: Tensor, labels: Tensor):
    p = logits.softmax(-1)
    p[:, 5] = torch.tensor([0, 0.25, 0, 0.75, 0, 0, 0], dtype=torch.float64)
    softened = Predictions.from_probabilities(p, labels).calibrated(lambda z: z / 2)
    expected = p.sqrt() / p.sqrt().sum(-1, keepdim=True)
    assert_close(softened.confidence, expected.amax(-1), atol=1e-14, rtol=0)
    assert_close(Predictions.from_probabilities(expected, labels).brier, softened.brier, atol=1e-13, rtol=0)


# ---- calibrated
# --------------------------------------------------------------------------------------------------


@every
def test_a_map_is_applied_while_reading(logits: Tensor, labels: Tensor, name: str):
    by_class = torch.linspace(0.5, 1.5, 7, dtype=torch.float64)
    mapped = Predictions.from_logits(logits, labels, mask=labels != 2).calibrated(lambda z: z * by_class)
    assert torch.equal(
        column(name, mapped),
        column(name, Predictions.from_logits((logits * by_class)[:, labels != 2], labels[labels != 2])),
    )


def test_one_map_after_another(logits: Tensor, labels: Tensor):
    twice = (
        Predictions.from_logits(logits, labels)
        .calibrated(lambda z: z + torch.arange(7))
        .calibrated(lambda z: z / 2)
    )
    assert_close(
        twice.nll, Predictions.from_logits((logits + torch.arange(7)) / 2, labels).nll, atol=1e-14, rtol=0
    )


def test_a_map_is_told_its_rows(logits: Tensor, labels: Tensor):
    shift = torch.linspace(0, 5, 101, dtype=torch.float64)
    by_row = Predictions.from_logits(logits, labels).mapped(lambda z, rows: z * shift[rows].unsqueeze(-1))
    assert_close(
        by_row.nll, Predictions.from_logits(logits * shift.unsqueeze(-1), labels).nll, atol=1e-14, rtol=0
    )


# ---- examples that do not count
# -----------------------------------------------------------------------------------------


@every
def test_a_mask_is_leaving_out(logits: Tensor, labels: Tensor, name: str):
    mask = torch.arange(101) % 3 != 1
    without = Predictions.from_logits(logits[:, mask], labels[mask])
    logits[:, ~mask] = NAN
    labels[~mask] = 99
    masked = Predictions.from_logits(logits, labels, mask=mask)
    assert masked.examples == 67
    assert torch.equal(column(name, masked), column(name, without))


@pytest.mark.parametrize(
    ("dtype", "ignored"), [(torch.int64, -100), (torch.int8, -1), (torch.uint8, 255), (torch.int32, 3)]
)
def test_an_ignored_label_is_left_out(logits: Tensor, labels: Tensor, dtype: torch.dtype, ignored: int):
    counts = labels != 3
    expected = Predictions.from_logits(logits[:, counts], labels[counts])
    labels = labels.to(dtype)
    labels[~counts] = ignored
    logits[:, ~counts] = NAN
    for made in (
        Predictions.from_logits,
        lambda z, y, **options: Predictions.from_probabilities(z.softmax(-1), y, **options),
    ):
        predictions = made(logits, labels, ignore_index=ignored)
        assert torch.equal(predictions.labels, expected.labels)
        assert_close(predictions.nll, expected.nll, atol=1e-13, rtol=0)


@pytest.mark.parametrize(("dtype", "alias", "ignored"), [(torch.uint8, 156, -100), (torch.int8, 99, 355)])
def test_a_narrow_label_is_not_taken_for_the_ignored_one(dtype: torch.dtype, alias: int, ignored: int):
    """156 in uint8 has the bits of -100 in int8."""
    labels = torch.tensor([alias, 1, 2], dtype=dtype)
    assert Predictions.from_logits(torch.randn(3, 160), labels, ignore_index=ignored).examples == 3


def test_mask_and_ignored_label_add_up(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels, mask=torch.arange(101) < 50, ignore_index=2)
    assert torch.equal(predictions.labels, labels[:50][labels[:50] != 2])


def test_a_mask_of_all_examples_is_none(logits: Tensor, labels: Tensor):
    assert (
        Predictions.from_logits(
            logits, labels, mask=torch.ones(101, dtype=torch.bool), ignore_index=-100
        ).keep
        is None
    )


# ---- distributions
# --------------------------------------------------------------------------------------------------


def test_the_label_of_a_distribution_is_its_most_probable_class(logits: Tensor, labels: Tensor):
    q = torch.nn.functional.one_hot(labels, 7).float() * 0.4 + 0.6 / 7
    mask = torch.arange(101) != 6
    predictions = Predictions.from_logits(logits, q, mask=mask)
    assert torch.equal(predictions.labels, labels[mask])
    assert predictions.distribution is not None
    assert predictions.distribution.dtype == torch.float64
    assert torch.equal(predictions.distribution, q[mask].double())
    assert torch.equal(predictions.nll, Predictions.from_logits(logits[:, mask], labels[mask]).nll)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.4, 0.0], r"sums to 0.9, its least is 0;"),
        ([0.7, 0.4, -0.1], r"sums to 1, its least is -0.1;"),
        ([NAN, 0.5, 0.5], r"sums to nan, its least is nan;"),
        ([3.0, 1.0, 2.0], r"sums to 6, its least is 1;"),
    ],
)
def test_what_is_no_distribution(row: list[float], message: str):
    q = torch.full((5, 3), 1 / 3, dtype=torch.float64)
    q[3], q[0] = torch.tensor(row, dtype=torch.float64), NAN
    with pytest.raises(
        ValueError,
        match=rf"^the label distribution of row 3 {message} a row sums to 1 and holds nothing negative$",
    ):
        Predictions.from_logits(torch.zeros(5, 3), q, mask=torch.arange(5) > 0)


# ---- errors
# --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("scores", "labels", "shown"),
    [
        ((5, 3), (4,), r"\(5, 3\) and labels \(4,\)"),
        ((2, 5, 3), (2,), r"\(2, 5, 3\) and labels \(2,\)"),
        ((5,), (5,), r"\(5,\) and labels \(5,\)"),
        ((), (), r"\(\) and labels \(\)"),
        ((5, 3), (5, 1), r"\(5, 3\) and labels \(5, 1\)"),
        ((5, 3), (), r"\(5, 3\) and labels \(\)"),
        ((2, 5, 3), (2, 5), r"\(2, 5, 3\) and labels \(2, 5\)"),
    ],
)
def test_shapes_which_do_not_fit(scores: tuple[int, ...], labels: tuple[int, ...], shown: str):
    message = (
        rf"^logits have shape {shown} of torch.int64; wanted \(..., N, K\), and \(N,\) integers or an \(N,"
        r" K\) float distribution$"
    )
    with pytest.raises(ValueError, match=message):
        Predictions.from_logits(torch.ones(scores), torch.zeros(labels, dtype=torch.int64))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 5, 3)])
def test_a_distribution_which_does_not_fit(shape: tuple[int, ...]):
    with pytest.raises(
        ValueError, match=r"^probabilities have shape \(5, 3\) and labels \(.*\) of torch.float32; wanted"
    ):
        Predictions.from_probabilities(torch.full((5, 3), 1 / 3), torch.ones(shape))


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_the_wrong_type():
    with pytest.raises(ValueError, match=r"^logits are torch.int64; wanted a floating-point type$"):
        Predictions.from_logits(torch.ones(5, 3, dtype=torch.int64), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels \(5,\) of torch.bool; wanted"):
        Predictions.from_logits(torch.ones(5, 3), torch.zeros(5, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (4, 1), (4, 0)])
def test_nothing_to_score(shape: tuple[int, ...]):
    *_, examples, classes = shape
    message = (
        rf"^there are {examples} examples of {classes} classes; wanted at least 1 example and 2 classes$"
    )
    with pytest.raises(ValueError, match=message):
        Predictions.from_logits(torch.ones(shape), torch.zeros(examples, dtype=torch.int64))


def test_no_member():
    with pytest.raises(
        ValueError,
        match=r"^logits have shape \(2, 0, 4, 3\); wanted at least 1 member in every leading dimension$",
    ):
        Predictions.from_logits(torch.ones(2, 0, 4, 3), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(("value", "shown"), [(NAN, "nan"), (INF, "inf")])
@pytest.mark.parametrize("place", [(1, 44, 5), (0, 0, 0), (2, 100, 6)])
def test_a_logit_which_is_no_number(
    logits: Tensor, labels: Tensor, value: float, shown: str, place: tuple[int, int, int]
):
    logits[place] = value
    message = (
        rf"^the logit at \({place[0]}, {place[1]}, {place[2]}\) is {shown}; allowed are finite numbers and"
        r" -inf$"
    )
    with pytest.raises(ValueError, match=message):
        Predictions.from_logits(logits, labels)


def test_the_place_of_a_wrong_logit_counts_what_was_masked(logits: Tensor, labels: Tensor):
    logits[2, 60, 1] = NAN
    grid = torch.stack([logits.clone().nan_to_num(), logits])
    with pytest.raises(ValueError, match=r"^the logit at \(1, 2, 60, 1\) is nan;"):
        Predictions.from_logits(grid, labels, mask=torch.arange(101) % 2 == 0)


def test_a_wrong_logit_far_into_the_data():
    logits = torch.zeros(2, 900_000, 5)
    logits[1, 899_998, 3] = INF
    with pytest.raises(ValueError, match=r"^the logit at \(1, 899998, 3\) is inf;"):
        Predictions.from_logits(logits, torch.zeros(900_000, dtype=torch.int64))


def test_a_row_of_masked_classes(logits: Tensor, labels: Tensor):
    logits[2, 7] = -INF
    with pytest.raises(
        ValueError, match=r"^every logit of row \(2, 7\) is -inf; at least one class must be possible$"
    ):
        Predictions.from_logits(logits, labels)


@pytest.mark.parametrize("label", [-1, 7, -100])
def test_a_label_outside_the_classes(logits: Tensor, labels: Tensor, label: int):
    labels[13] = label
    message = rf"^the label at 13 is {label}; allowed is 0 to 6, the number of classes less one$"
    for mask in (None, torch.arange(101) > 4):
        with pytest.raises(ValueError, match=message):
            Predictions.from_logits(logits, labels, mask=mask)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.4, 0.0], r"sum to 0.9, the least is 0;"),
        ([0.7, 0.4, -0.1], r"sum to 1, the least is -0.1;"),
        ([NAN, 0.5, 0.5], r"sum to nan, the least is nan;"),
        ([INF, 0.5, 0.5], r"sum to inf, the least is 0.5;"),
        ([2.0, 1.0, -2.0], r"sum to 1, the least is -2;"),
    ],
)
def test_what_are_no_probabilities(row: list[float], message: str):
    p = torch.full((2, 5, 3), 1 / 3, dtype=torch.float64)
    p[1, 3] = torch.tensor(row, dtype=torch.float64)
    ending = r" a row sums to 1 and holds nothing negative. Are these logits\? Then use from_logits$"
    with pytest.raises(ValueError, match=rf"^the probabilities of row \(1, 3\) {message}{ending}"):
        Predictions.from_probabilities(p, torch.zeros(5, dtype=torch.int64))


def test_logits_given_for_probabilities(logits: Tensor, labels: Tensor):
    with pytest.raises(
        ValueError,
        match=r"^the probabilities of row \(0, 0\) sum to .* Are these logits\? Then use from_logits$",
    ):
        Predictions.from_probabilities(logits, labels)


@pytest.mark.usefixtures("unchecked")
def test_masks_which_do_not_fit(logits: Tensor, labels: Tensor):
    with pytest.raises(
        ValueError, match=r"^the mask is torch.bool of shape \(100,\); wanted torch.bool of shape \(101,\)$"
    ):
        Predictions.from_logits(logits, labels, mask=torch.ones(100, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^the mask is torch.float32 of shape \(101,\); wanted torch.bool"):
        Predictions.from_logits(logits, labels, mask=torch.ones(101))


def test_nothing_counts(logits: Tensor, labels: Tensor):
    with pytest.raises(ValueError, match=r"^no example counts: the mask or ignore_index leaves none$"):
        Predictions.from_logits(logits, labels, mask=torch.zeros(101, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^no example counts"):
        Predictions.from_logits(logits, torch.full((101,), -100), ignore_index=-100)


def test_an_ignored_label_needs_class_indices(logits: Tensor):
    with pytest.raises(
        ValueError,
        match=r"^ignore_index goes with class indices; leave out rows of label distributions with mask$",
    ):
        Predictions.from_logits(logits, torch.full((101, 7), 1 / 7), ignore_index=-100)
