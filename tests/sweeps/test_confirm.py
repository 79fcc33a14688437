from dataclasses import replace

import numpy as np
import pytest
import torch
from outcomes import bare

from lscal import CALIBRATORS, METRICS, Predictions, Temperature
from lscal.selective import risk_coverage
from sweeps import recalibration
from sweeps.data.dataset import Dataset, Split
from sweeps.protocol.confirm import BySeed, Confirmation, batches, bounds, confirm
from sweeps.scoring import risks_of
from tracking.decision.prices import Prices
from tracking.decision.terms import Terms
from tracking.records.outcome import Bins
from tracking.report.summary import people

GENERATOR = torch.Generator().manual_seed(3)
VALUES = torch.tensor([0.35, 0.47, 0.38], dtype=torch.float64)
REPLICATES = VALUES + 0.02 * torch.randn(1000, 3, generator=GENERATOR, dtype=torch.float64)
EPSILON = BySeed(VALUES + 0.02, REPLICATES + 0.02)


def test_differences_and_shares_of_the_control_are_taken_seed_by_seed_on_the_same_resamples():
    control, whole = BySeed(VALUES, REPLICATES), EPSILON.interval()
    difference, share = EPSILON.less(control).interval(), EPSILON.share(control).interval()
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.02,) * 3, abs=1e-9)
    assert share.value == pytest.approx(0.42 / 0.4)
    assert share.low == pytest.approx(whole.low / 0.4, abs=1e-8)
    nothing = BySeed(torch.zeros(3, dtype=torch.float64), torch.zeros(1000, 3, dtype=torch.float64))
    assert EPSILON.share(nothing).interval() == whole


def test_an_interval_stops_at_zero_except_for_the_signed_gap():
    small = BySeed(VALUES - 0.38, REPLICATES - 0.38)
    assert small.interval(bounds("ece_calibrated")).low == 0.0
    assert small.interval(bounds("confidence_gap")).low < -0.05


def test_batches_of_seeds_join_in_their_order():
    whole = EPSILON.first(1).with_more(BySeed(EPSILON.values[1:], EPSILON.replicates[:, 1:]))
    assert whole.interval() == EPSILON.interval()


def test_seeds_come_in_batches():
    assert [batches(seeds) for seeds in (8, 4, 2)] == [[(0, 4), (4, 4)], [(0, 4)], [(0, 2)]]
    assert sum(count for _, count in batches(37)) == 37


EXAMPLES = {"calibrate": 300, "test": 400}
LABELS = {
    split: torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(count))
    for split, count in EXAMPLES.items()
}
SPLITS = {split: Split(torch.zeros(len(own), 1), own) for split, own in LABELS.items()}
DATASET = Dataset("made", SPLITS, ("a", "b", "c"), (0.0,), (1.0,), "x", "nowhere")


def members(epsilon, places, lead):
    """A trial whose members are right the more, the higher `lead` is."""
    logits = {}
    for split, labels in LABELS.items():
        rows = []
        for place in places:
            generator = torch.Generator().manual_seed(1000 * place + len(labels))
            own = torch.randn(len(labels), 3, generator=generator)
            rows.append(own + lead * torch.nn.functional.one_hot(labels, 3))
        logits[split] = torch.stack(rows)
    temperature = Temperature.fit(logits["calibrate"], LABELS["calibrate"])
    raw = Predictions.from_logits(logits["calibrate"], LABELS["calibrate"])
    risks = {"calibrate_calibrated": risks_of(raw.calibrated(temperature))}
    bins = {"test": Bins((400 * len(places),), (0.5,), (0.5,), 0.0, 0.0)}
    seeds = tuple(places)
    outcome = bare(epsilon, task="made/up", stage="confirm", classes=3, seeds=seeds, bins=bins, risks=risks)
    return outcome, logits


def confirmed(leads, planned, diverges=()):
    """Run a confirmation of ε -> lead, and list that points were trained with which seeds; (ε, first seed)
    in `diverges` diverge.
    """
    asked = []

    def train(places, keys):
        asked.append((list(places), list(keys)))
        return {
            key: members(float(key), places, leads[key]) for key in keys if (key, places[0]) not in diverges
        }

    made = Confirmation(DATASET, Terms("accuracy"), planned, "0.0", replicates=100)
    confirm(made, {key: ["accuracy"] for key in leads if key != "0.0"}, train)
    return made, asked


def test_a_settled_question_gets_no_more_seeds_and_an_open_one_does():
    made, asked = confirmed({"0.0": 2.0, "0.1": 2.03, "0.2": 4.5}, 12)
    assert asked[0] == ([0, 1, 2, 3], ["0.0", "0.1", "0.2"])
    assert [keys for _, keys in asked] == [["0.0", "0.1", "0.2"], ["0.0", "0.1", "0.2"], ["0.0", "0.1"]]
    found = made.comparisons()
    assert [len(found[key].outcome.seeds) for key in ("0.0", "0.1", "0.2")] == [12, 12, 8]
    assert found["0.2"].claims["accuracy"].p < 0.025
    assert found["0.1"].claims["accuracy"].seeds == (4, 8, 12)
    control, other = (
        made.runs["0.0"].values["accuracy"].values[:8],
        made.runs["0.2"].values["accuracy"].values,
    )
    paired = pytest.approx(float((other - control).mean()), abs=1e-9)  # with the same seeds of the control
    assert found["0.2"].differences["accuracy"].value == paired


def test_without_finalists_the_control_gets_one_batch():
    made, asked = confirmed({"0.0": 2.0}, 12)
    assert asked == [([0, 1, 2, 3], ["0.0"])]
    only = made.comparisons()["0.0"]
    assert only.claims == {}
    assert {interval.value for interval in only.differences.values()} == {0.0}


def test_a_finalist_that_diverges_later_is_given_up():
    made, asked = confirmed({"0.0": 2.0, "0.1": 2.03}, 8, diverges={("0.1", 4)})
    assert "0.1" in asked[1][1]
    assert list(made.comparisons()) == ["0.0"]


def test_a_control_that_diverges_ends_it():
    made, asked = confirmed({"0.0": 2.0, "0.1": 2.03}, 8, diverges={("0.0", 0)})
    assert len(asked) == 1
    assert made.comparisons() == {}


def test_the_cost_is_that_of_the_most_confident_share_and_reviews_of_the_rest():
    prices = Prices(wrong=1.0, review=0.2, right=-0.1)
    made = Confirmation(DATASET, replace(Terms(), prices=prices), 4, "0.0", replicates=100)
    outcome, logits = members(0.0, range(4), 2.0)
    made.add({"0.0": (outcome, logits)})
    coverage = made.runs["0.0"].coverage
    assert coverage == prices.coverage_of(outcome)
    assert 0 < coverage < 1
    raw = Predictions.from_logits(logits["test"], LABELS["test"])
    calibrated = raw.calibrated(Temperature.fit(logits["calibrate"], LABELS["calibrate"]))
    risk = risk_coverage(calibrated.ranking, calibrated.correct)[:, round(coverage * 400) - 1]
    expected = coverage * (risk - 0.1 * (1 - risk)) + (1 - coverage) * 0.2
    assert made.runs["0.0"].values["cost"].values.tolist() == pytest.approx(expected.tolist())


def test_everything_is_reviewed_where_no_coverage_is_cheaper_on_calibrate():
    outcome, logits = members(0.0, range(4), 9.0)
    assert {risk for row in outcome.risks["calibrate_calibrated"] for risk in row} == {0.0}
    for known, decided in ((0, True), (300, False), (3000, True)):
        made = Confirmation(
            DATASET, replace(Terms(), prices=Prices(wrong=1000.0, review=1.0)), 4, "0.0", replicates=100
        )
        made.add({"0.0": (replace(outcome, calibrate_examples=known), logits)})
        comparison = made.comparisons()["0.0"]
        assert (comparison.coverage > 0) == decided
        if not decided:
            assert set(made.runs["0.0"].values["cost"].values.tolist()) == {1.0}
            assert (comparison.estimates["cost"].low, comparison.estimates["cost"].high) == (1.0, 1.0)


def test_confidence_and_probabilities_of_an_example_are_means_over_all_seeds():
    made, _ = confirmed({"0.0": 2.0, "0.1": 2.03}, 8)
    logits = torch.cat([members(0.1, range(first, first + 4), 2.03)[1]["test"] for first in (0, 4)])
    run = made.runs["0.1"]
    torch.testing.assert_close(run.probabilities, logits.softmax(-1).mean(0))
    torch.testing.assert_close(run.confidence, logits.softmax(-1).amax(-1).mean(0))


def test_estimates_are_the_means_over_seeds():
    made, _ = confirmed({"0.0": 2.0}, 4)
    logits = members(0.0, range(4), 2.0)[1]["test"]
    found = made.comparisons()["0.0"].estimates
    expected = METRICS["nll"].function(Predictions.from_logits(logits, LABELS["test"])).mean()
    assert found["nll"].value == pytest.approx(float(expected), abs=1e-6)
    assert found["accuracy"].examples + found["accuracy"].seeds > 0


def test_metrics_towards_people_use_the_examples_that_people_labelled(monkeypatch):
    votes = torch.rand(400, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    human = votes / votes.sum(-1, keepdim=True)
    human[::3] = torch.nan
    known = human.isfinite().all(-1)
    made, _ = confirmed({"0.0": 2.0, "0.1": 4.0}, 4)
    splits = DATASET.splits | {"test": replace(DATASET.splits["test"], human=human)}
    monkeypatch.setattr(f"{__name__}.DATASET", replace(DATASET, splits=splits))
    found, before = confirmed({"0.0": 2.0, "0.1": 4.0}, 4)[0].comparisons()["0.1"], made.comparisons()["0.1"]
    assert {
        name: value for name, value in found.estimates.items() if name in before.estimates
    } == before.estimates
    assert found.estimates.keys() - before.estimates.keys() == {
        f"{name}{suffix}"
        for name in ("soft_nll", "jensen_shannon", "human_ece")
        for suffix in ("", "_calibrated")
    }
    _, logits = members(0.1, range(4), 4.0)
    towards = Predictions.from_logits(logits["test"][:, known], human[known])
    temperature = Temperature.fit(logits["calibrate"], LABELS["calibrate"])
    for suffix, predictions in (("", towards), ("_calibrated", towards.calibrated(temperature))):
        expected = METRICS["soft_nll"].function(predictions).mean()
        assert found.estimates[f"soft_nll{suffix}"].value == pytest.approx(float(expected), abs=1e-8)
    table = people([found])
    assert [len(row) for row in table.rows] == [7]
    assert people([before]).rows == ()


def test_the_chance_of_being_better_and_the_expected_loss_are_those_of_a_crossed_bootstrap():
    random = np.random.default_rng(5)
    replicates = 0.01 * random.standard_normal((4000, 1)) + 0.01 * random.standard_normal((4000, 3))
    better = BySeed(torch.full((3,), 0.01).double(), torch.from_numpy(replicates + 0.01))
    drawn = [
        np.mean([replicates[row, seed] + 0.01 for seed in random.integers(0, 3, 3)]) for row in range(4000)
    ]
    found = better.chance(1)
    assert found.better == pytest.approx(np.mean(np.array(drawn) > 0), abs=0.02)
    assert found.loss == pytest.approx(np.mean(np.maximum(0, -np.array(drawn))), rel=0.1)
    worse = better.chance(-1)
    assert worse.better == pytest.approx(1 - found.better)
    assert worse.loss > 5 * found.loss
    certain = BySeed(torch.ones(2).double(), torch.ones(50, 2).double())
    assert (certain.chance(1).better, certain.chance(1).loss) == (1.0, 0.0)
    nothing = BySeed(torch.zeros(2).double(), torch.zeros(50, 2).double())
    assert (nothing.chance(1).better, nothing.chance(1).loss) == (0.5, 0.0)


def test_two_finalists_are_compared_over_the_seeds_that_both_have():
    made, _ = confirmed({"0.0": 2.0, "0.1": 2.03, "0.2": 4.5}, 12)
    found = made.between("0.2", "0.1", "accuracy")
    first, second = (made.runs[key].values["accuracy"].values[:8] for key in ("0.2", "0.1"))
    assert found.value == pytest.approx(float((first - second).mean()), abs=1e-9)
    assert found.low > 0


def test_each_point_has_a_recalibration_of_its_own_chosen_on_calibrate_with_its_first_seeds(monkeypatch):
    asked = []

    def choose(logits, labels, groups=None):
        asked.append((logits.shape, len(labels)))
        return "temperature" if len(asked) == 1 else "sms"

    monkeypatch.setattr("sweeps.recalibration.choose", choose)
    made, _ = confirmed({"0.0": 2.0, "0.1": 2.03}, 8)
    assert asked == [((4, 300, 3), 300)] * 2  # once for each, on calibrate
    found = made.comparisons()
    assert (found["0.0"].recalibrator, found["0.1"].recalibrator) == ("temperature", "sms")
    control = found["0.0"].estimates
    assert control["nll_recalibrated"] == control["nll_calibrated"]
    nll = []
    for place in range(8):
        _, logits = members(0.1, [place], 2.03)
        fitted = CALIBRATORS["sms"].fit(logits["calibrate"][0], LABELS["calibrate"])
        log_p = fitted(logits["test"][0]).log_softmax(-1)
        nll.append(float(-log_p.gather(-1, LABELS["test"][:, None]).mean()))
    assert found["0.1"].estimates["nll_recalibrated"].value == pytest.approx(sum(nll) / 8, abs=1e-7)
    assert made.runs["0.1"].calibrator.method == "sms"


def test_a_recalibration_is_the_simplest_unless_another_is_told_better():
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (3000,), generator=generator)
    logits = torch.randn(2, 3000, 3, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 3)
    assert recalibration.choose(logits, labels) == "temperature"
    mixed = logits @ torch.tensor([[1.0, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.3]])
    assert recalibration.choose(mixed, labels) == "sms"
    assert recalibration.choose(mixed, labels, quick=True) == "sms"
    assert recalibration.choose(mixed, labels, groups=torch.zeros(3000, dtype=torch.int64)) == "temperature"
    wide = torch.randn(1, 50, 2000, generator=generator)
    assert recalibration.choose(wide, torch.zeros(50, dtype=torch.int64)) == "temperature"
