"""The audit record of the test split, on a real database."""

from dataclasses import replace

import pytest

from sweeps.protocol.test_ledger import (
    TestOpened,
    earlier_claims,
    note_claims,
    open_test,
    openings_of,
    refuse_more,
)
from sweeps.settings import resolve
from sweeps.studies.opening import open_study
from sweeps.studies.retrying_storage import open_storage
from tracking.decision.prices import Prices
from tracking.decision.terms import Tolerances

CONTROL, FIRST, SECOND = ({"epsilon": epsilon} for epsilon in (0.0, 0.1, 0.25))


@pytest.fixture
def study(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    plan = resolve({"smoothing": "uniform"})
    yield open_study(storage, plan, plan.tasks[0], "digest")[0]
    storage.engine.dispose()


def open_for(study, *points, seeds=8, reopen=False, said=print):
    return open_test(study, points, seeds, "run7", reopen, said)


def test_an_opening_is_recorded_with_its_points_and_seeds(study):
    assert openings_of(study) == ()
    (opening,) = open_for(study, CONTROL, FIRST)
    assert opening.points == (CONTROL, FIRST)
    assert (len(opening.seeds), opening.run_id, opening.study) == (8, "run7", study.name)
    assert opening.when.endswith("+00:00")
    assert openings_of(study) == (opening,)


def test_resuming_with_the_same_finalists_is_no_second_opening(study):
    first = open_for(study, CONTROL, FIRST)
    assert open_for(study, FIRST, CONTROL) == first


@pytest.mark.parametrize(
    "change", [{"points": (CONTROL, SECOND)}, {"points": (CONTROL, FIRST, SECOND)}, {"seeds": 12}]
)
def test_other_finalists_or_seeds_are_refused_with_time_run_and_remedy(study, change):
    (first,) = open_for(study, CONTROL, FIRST)
    with pytest.raises(TestOpened) as caught:
        open_for(study, *change.get("points", (CONTROL, FIRST)), seeds=change.get("seeds", 8))
    for word in (first.when, "run7", "ε = 0.1", "--reopen-test"):
        assert word in str(caught.value)
    assert openings_of(study) == (first,)


@pytest.mark.parametrize(
    "change",
    [{"policy": "accuracy"}, {"prices": Prices(1.0, 0.2, 0.0)}, {"tolerances": Tolerances(nll_relative=0.1)}],
)
def test_other_terms_are_another_opening(study, change):
    open_for(study, CONTROL, FIRST)
    study.plan = replace(study.plan, **change)
    with pytest.raises(TestOpened):
        open_for(study, CONTROL, FIRST)


def test_claims_of_an_aborted_opening_count_with_p_1(study):
    open_for(study, CONTROL, FIRST, SECOND)
    open_for(study, CONTROL, SECOND, reopen=True)
    assert earlier_claims(study) == [1.0, 1.0]


def test_more_trials_are_refused_before_they_are_trained(study):
    refuse_more(study)
    open_for(study, CONTROL, FIRST)
    with pytest.raises(TestOpened, match=r"8 more trials .* --reopen-test"):
        refuse_more(study)


def test_a_second_opening_counts_the_claims_of_the_first(study):
    open_for(study, CONTROL, FIRST)
    note_claims(study, [0.03, 0.2])
    assert earlier_claims(study) == []
    said = []
    openings = open_for(study, CONTROL, SECOND, reopen=True, said=said.append)
    assert [len(opening.points) for opening in openings] == [2, 2]
    assert "opening 2" in said[0]
    assert earlier_claims(study) == [0.03, 0.2]
    note_claims(study, [0.01])
    assert earlier_claims(study) == [0.03, 0.2]
    assert len(open_for(study, CONTROL, SECOND)) == 2
