from dataclasses import replace

import numpy as np
import pytest

from tracking.decision.alike import unlike
from tracking.decision.decide import accepted, claimed, decide
from tracking.decision.holm import weights
from tracking.decision.policies import INCUMBENT, POLICIES, ties
from tracking.decision.prices import Prices
from tracking.decision.recommend import Source, recommend
from tracking.decision.screening import Screening
from tracking.decision.settled import levels, settled
from tracking.decision.terms import Terms, Tolerances
from tracking.records.comparison import Claim, Comparison
from tracking.records.outcome import Bins, Interval, Outcome
from tracking.records.point import key_of
from tracking.report.answer import sentences

METRICS = (
    "accuracy",
    "ece",
    "ece_calibrated",
    "aurc",
    "aurc_calibrated",
    "nll_calibrated",
    "worst_class_accuracy",
    "confidence_gap",
    "cost",
)
SOURCE = Source("digits/mlp@1", "run", "uniform", 1000, 1, "now")
TERMS = Terms()


def candidates(screening, terms):
    """Each candidate's point, by name."""
    return {name: screening.point_at(tie) for name, tie in ties(screening, terms).items()}


def confirmed(epsilon, seeds=8):
    bins = {"test": Bins((1000 * seeds,), (0.9,), (0.9,), 0.0, 0.0)}
    point = {"epsilon": epsilon}
    places = tuple(range(5000, 5000 + seeds))
    return Outcome(
        f"u{epsilon}",
        "digits/mlp",
        "s",
        "confirm",
        0,
        epsilon,
        10,
        point,
        places,
        {},
        {},
        (),
        bins,
        1.0,
        "now",
    )


def comparison(
    epsilon,
    gain=(0.012, 0.004, 0.02),
    p=0.003,
    aurc=(-0.1, -0.2, 0.01),
    nll=0.0,
    worst=0.0,
    gap=-0.002,
    nll_claim=(-0.01, -0.02, 0.001),
    nll_p=0.04,
    cost=(-0.01, -0.02, -0.001),
    cost_p=0.01,
    seeds=8,
):
    """A confirmed ε; of each triple: value, low, high."""
    same = Interval(0.0, 0.0, 0.0)
    made = {
        "accuracy": Interval(*gain, examples=0.001, seeds=0.005, freedom=7.0),
        "worst_class_accuracy": Interval(worst, worst - 0.1, worst + 0.1),
        "nll_calibrated": Interval(*nll_claim, examples=0.001, seeds=0.01),
        "cost": Interval(*cost),
    }
    relative = {
        "aurc_calibrated": Interval(*aurc, examples=0.02, seeds=0.05),
        "nll_calibrated": Interval(nll, nll - 0.005, nll + 0.005),
    }
    estimates = dict.fromkeys(METRICS, Interval(0.9, 0.88, 0.92)) | {
        "confidence_gap": Interval(gap, gap - 0.01, gap + 0.01)
    }
    claims = {
        "accuracy": Claim(p, gain[1], gain[2], (4, seeds), (gain[0], gain[0])),
        "nll_calibrated": Claim(nll_p, nll_claim[1], nll_claim[2], (4, seeds), (0.0, 0.0)),
        "cost": Claim(cost_p, cost[1], cost[2], (4, seeds), (0.0, 0.0)),
        "aurc_calibrated": Claim(0.5, aurc[1], aurc[2], (4, seeds), (0.0, 0.0)),
    }
    if epsilon == 0:
        return Comparison(
            confirmed(0.0, seeds), estimates, dict.fromkeys(METRICS, same), dict.fromkeys(METRICS, same)
        )
    return Comparison(
        confirmed(epsilon, seeds),
        estimates,
        dict.fromkeys(METRICS, same) | made,
        dict.fromkeys(METRICS, same) | relative,
        claims,
        0.9,
    )


CONTROL = comparison(0.0, gap=0.003)


def decision_of(policy, found, terms=TERMS, openings=1):
    terms = replace(terms, policy=policy)
    taken = accepted({policy: found}, terms)[policy]
    return recommend(
        policy, {"epsilon": found.epsilon}, found, CONTROL, taken, terms, replace(SOURCE, openings=openings)
    )


def test_a_proven_harmless_gain_is_adopted():
    found = decision_of("safe", comparison(0.2))
    assert found.epsilon == 0.2
    assert found.epsilon_wrong_classes == pytest.approx(0.18)
    assert [condition.met for condition in found.conditions] == [True] * 4
    assert [condition.remedy for condition in found.conditions] == [""] * 4
    assert "is adopted" in found.reason
    assert (found.delta_accuracy.value, found.delta_accuracy.low, found.delta_accuracy.high) == (
        0.012,
        0.004,
        0.02,
    )
    assert (found.seeds, found.examples, found.coverage, found.smoothing) == (8, 1000, 0.9, "uniform")


@pytest.mark.parametrize("policy", ["safe", "raw", "accuracy"])
@pytest.mark.parametrize(
    ("gain", "p"), [((0.003, -0.001, 0.007), 0.06), ((0.003, 0.0, 0.006), 0.0251), ((0.0, 0.0, 0.0), 1.0)]
)
def test_a_gain_which_cannot_be_told_from_zero_is_not_adopted_and_the_sentence_says_so(policy, gain, p):
    found = decision_of(policy, comparison(0.2, gain=gain, p=p))
    assert found.epsilon == 0
    assert found.candidate == 0.2
    assert "cannot be told from zero" in found.reason
    assert found.delta_accuracy == Interval(0.0, 0.0, 0.0)
    assert found.conditions[0].remedy


def test_a_loss_is_called_a_loss():
    found = decision_of("accuracy", comparison(0.2, gain=(-0.01, -0.02, -0.001), p=1.0))
    assert "is a loss" in found.reason
    assert "wrong side" in found.conditions[0].remedy


def test_more_seeds_or_more_examples_are_what_would_settle_it():
    few = decision_of("accuracy", comparison(0.2, gain=(0.004, -0.0005, 0.0085), p=0.05)).conditions[0].remedy
    assert few.split()[0].isdigit()
    assert "more seeds would settle it" in few
    never = decision_of("accuracy", comparison(0.2, gain=(0.0015, -0.003, 0.006), p=0.3)).conditions[0].remedy
    assert "no number of seeds" in never
    assert "test examples (now 1000)" in never


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        ({"aurc": (0.02, -0.02, 0.06)}, "ranking kept"),
        ({"nll": 0.011}, "probabilities kept"),
        ({"worst": -0.011}, "worst class kept"),
    ],
)
def test_safe_refuses_what_recalibration_cannot_repair(harm, name):
    found = decision_of("safe", comparison(0.2, **harm))
    assert found.epsilon == 0
    assert [condition.name for condition in found.conditions if not condition.met] == [name]
    assert all(condition.remedy for condition in found.conditions if not condition.met)
    assert decision_of("accuracy", comparison(0.2, **harm)).epsilon == 0.2


def test_raw_refuses_underconfidence_which_safe_leaves_to_recalibration():
    smoothed = comparison(0.2, gap=-0.18)
    assert decision_of("safe", smoothed).epsilon == 0.2
    found = decision_of("raw", smoothed)
    assert found.epsilon == 0
    assert [condition.name for condition in found.conditions if not condition.met] == ["confidence kept"]
    assert "policy safe" in found.conditions[-1].remedy
    assert decision_of("raw", comparison(0.2, gap=0.0099)).epsilon == 0.2


def test_raw_allows_a_gap_little_worse_than_that_of_the_control():
    terms = Terms("raw")
    far = replace(CONTROL, estimates={**CONTROL.estimates, "confidence_gap": Interval(0.04, 0.03, 0.05)})
    for gap, epsilon in ((-0.0449, 0.2), (-0.0451, 0.0)):
        found = comparison(0.2, gap=gap)
        assert recommend("raw", {"epsilon": 0.2}, found, far, True, terms, SOURCE).epsilon == epsilon


def test_calibrated_and_utility_claim_what_they_are_named_for():
    assert decision_of("calibrated", comparison(0.2, nll_p=0.02, p=1.0)).epsilon == 0.2
    assert decision_of("calibrated", comparison(0.2, nll_p=0.03, p=0.001)).epsilon == 0
    assert decision_of("utility", comparison(0.2, cost_p=0.02, p=1.0)).epsilon == 0.2
    assert decision_of("utility", comparison(0.2, cost_p=0.03, p=0.001)).epsilon == 0
    assert "a fall" in decision_of("utility", comparison(0.2, cost_p=0.02)).reason


def test_tolerances_are_the_plans():
    harmed = comparison(0.2, nll=0.03)
    assert decision_of("safe", harmed, Terms(tolerances=Tolerances(nll_relative=0.05))).epsilon == 0.2


def test_a_candidate_which_diverged_with_fresh_seeds_is_not_adopted():
    found = recommend("safe", {"epsilon": 0.2}, None, CONTROL, False, TERMS, SOURCE)
    assert found.epsilon == 0
    assert "diverged" in found.reason


def test_further_openings_of_the_test_split_are_told():
    assert "opened 3 times" in decision_of("safe", comparison(0.2), openings=3).reason


def test_policies_with_the_same_candidate_and_target_make_one_claim():
    same, other = {"epsilon": 0.2}, {"epsilon": 0.3}
    found = {"epsilon=0.2": comparison(0.2), "epsilon=0.3": comparison(0.3)}
    mine, others = found["epsilon=0.2"].claims, found["epsilon=0.3"].claims
    chosen = {"safe": same, "raw": same, "accuracy": other, "calibrated": same, "utility": {"epsilon": 0.0}}
    claims = claimed(chosen, found, TERMS)
    assert [id(claim) for claim in claims] == [
        id(mine["accuracy"]),
        id(others["accuracy"]),
        id(mine["nll_calibrated"]),
    ]
    assert claimed(chosen, {"epsilon=0.3": found["epsilon=0.3"]}, TERMS) == [others["accuracy"]]


def test_of_translations_bleu_is_claimed_in_the_place_of_accuracy():
    plain = comparison(0.2)
    claims = {**plain.claims, "bleu": replace(plain.claims["accuracy"], p=0.9, low=-0.01)}
    none = Interval(0.0, -0.01, 0.01)
    translated = replace(
        plain, claims=claims, estimates={**plain.estimates, "bleu": Interval(0.3, 0.29, 0.31)}
    )
    translated = replace(translated, differences={**plain.differences, "bleu": none})
    assert decision_of("safe", plain).epsilon == 0.2
    told = decision_of("safe", translated)
    assert told.epsilon == 0
    assert "its BLEU difference of 0.00" in told.reason
    assert claimed({"safe": {"epsilon": 0.2}}, {"epsilon=0.2": translated}, TERMS) == [claims["bleu"]]


def test_half_of_the_weight_is_the_plans_own():
    family = [("a", "accuracy"), ("b", "accuracy"), ("c", "cost")]
    assert list(weights(family, [("a", "accuracy")]).values()) == [0.5, 0.25, 0.25]
    assert list(weights(family, []).values()) == pytest.approx([1 / 3] * 3)
    assert list(weights(family[:1], family[:1]).values()) == [1.0]
    assert list(weights(family, family[:1], openings=3).values()) == pytest.approx([0.125, 0.4375, 0.4375])


def decided(published, own):
    """What policy `safe` recommends where `own` is its candidate, and `published` was confirmed beside it."""
    found = {key_of(one.outcome.point): one for one in (CONTROL, own, published)}
    chosen = {"safe": own.outcome.point}
    ties = {"safe": (0.05, 0.3)}
    both = [
        decide(chosen, found, "epsilon=0.0", TERMS, SOURCE, tied=ties, incumbent=one)
        for one in (published.outcome.point, None)
    ]
    return both[0]["safe"], both[1]["safe"]


def test_a_published_epsilon_that_holds_every_condition_stays():
    """Given that both hold, when it is decided, then the published one is named, with its reason; without it
    the sweep's own is.
    """
    with_it, without = decided(comparison(0.2, p=0.001), comparison(0.1, p=0.001))
    assert (with_it.epsilon, with_it.incumbent, with_it.candidate) == (0.2, 0.2, 0.2)
    assert with_it.reason.startswith(
        "ε = 0.2, which is published already, cannot be told apart from what this sweep would name, and"
        " stays."
    )
    assert with_it.tied == (0.05, 0.3)
    assert (without.epsilon, without.incumbent) == (0.1, None)


def test_a_published_epsilon_that_fails_a_condition_goes_and_it_is_said_why():
    with_it, _ = decided(comparison(0.2, p=0.001, nll=0.03), comparison(0.1, p=0.001))
    assert (with_it.epsilon, with_it.incumbent) == (0.1, 0.2)
    assert "The published ε = 0.2 does not stay: NLL after temperature changes by +3.0" in with_it.reason


def test_a_published_epsilon_shares_the_weight_of_the_plans_own_claim():
    """More to choose from must not mean more false adoptions: each of the two has a quarter of the family's 5
    %, until the other is accepted.
    """
    weak, weaker = comparison(0.2, p=0.02), comparison(0.1, p=0.016)
    others = {"accuracy": comparison(0.3, p=0.9)}
    assert accepted({"safe": weak, **others}, TERMS)["safe"]
    together = accepted({"safe": weaker, INCUMBENT: weak, **others}, TERMS)
    assert (together["safe"], together[INCUMBENT]) == (False, False)
    assert accepted({"safe": weaker, INCUMBENT: comparison(0.2, p=0.012), **others}, TERMS) == {
        "safe": True,
        INCUMBENT: True,
        "accuracy": False,
    }


def test_other_finalists_do_not_weaken_the_plans_own_claim_but_their_own():
    own, other = comparison(0.2, p=0.0249), comparison(0.3, p=0.02, nll_p=0.5)
    third = comparison(0.1, nll_p=0.5)
    verdicts = accepted({"safe": own, "accuracy": other, "calibrated": third}, Terms("safe"))
    assert verdicts == {"safe": True, "accuracy": True, "calibrated": False}
    weak = comparison(0.2, p=0.9)
    assert accepted({"safe": weak, "accuracy": other, "calibrated": third}, Terms("safe")) == {
        "safe": False,
        "accuracy": False,  # 0.02 > 0.05 · 0.25
        "calibrated": False,
    }


def test_claims_of_earlier_openings_belong_to_the_family():
    found = {"safe": comparison(0.2, p=0.024)}
    assert accepted(found, TERMS)["safe"]
    assert accepted(found, TERMS, earlier=[0.9, 0.9])["safe"]  # one half of the weight is still its own
    assert not accepted(found, Terms("accuracy"), earlier=[0.9, 0.9])["safe"]
    assert not accepted(found, TERMS, earlier=[0.9, 0.9], openings=2)["safe"]  # 0.024 > 0.05 / 4


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (comparison(0.2), True),
        (comparison(0.2, gain=(0.012, -0.004, 0.03)), False),
        (comparison(0.2, gain=(-0.02, -0.03, -0.01)), True),
        (comparison(0.2, gain=(0.0, -0.002, 0.002)), True),  # at most 0.2 pp, and 0.3 are of interest
        (comparison(0.2, gain=(0.0, -0.002, 0.004)), False),
        (comparison(0.2, aurc=(0.2, 0.1, 0.3)), True),  # clearly refused
        (
            comparison(0.2, aurc=(0.02, -0.02, 0.06)),
            False,
        ),  # the gain is proven, the ranking is not clear yet
    ],
)
def test_when_more_seeds_can_be_saved(found, expected):
    assert settled(["safe"], found, CONTROL, TERMS, {"safe": 0.025}) is expected


def test_a_claim_of_another_policy_has_to_be_clearer():
    """The plan's own claims share one half of 5 %, the others the other half."""
    metrics = {"safe": "accuracy", "calibrated": "nll_calibrated", "honest": "nll", "utility": "cost"}
    claims = {name: ("a", metric) for name, metric in metrics.items()}
    found = levels(claims, TERMS)
    assert found == pytest.approx(
        {"safe": 0.025, **dict.fromkeys(("calibrated", "honest", "utility"), 0.05 / 6)}
    )
    both = levels({**claims, "safe@drop": ("b", "accuracy")}, TERMS)
    assert both["safe"] == both["safe@drop"] == pytest.approx(0.0125)
    assert levels({"safe": ("a", "accuracy")}, TERMS) == {"safe": 0.025}
    for p, expected in ((0.015, False), (0.006, True)):
        assert settled(["accuracy"], comparison(0.2, p=p), CONTROL, TERMS, {"accuracy": 0.00625}) is expected


def test_a_gap_near_its_tolerance_is_open_on_either_side():
    for gap in (-0.011, 0.011):
        near = comparison(0.2, gap=gap)
        assert not settled(["raw"], near, CONTROL, Terms("raw"), {"raw": 0.025})
    assert settled(["raw"], comparison(0.2, gap=-0.18), CONTROL, Terms("raw"), {"raw": 0.025})


def test_a_claim_that_only_the_others_weigh_down_is_told_so():
    found = comparison(0.2, p=0.02)
    refused = recommend("accuracy", {"epsilon": 0.2}, found, CONTROL, False, TERMS, SOURCE)
    assert "other policies are counted" in refused.conditions[0].remedy
    assert "Holm" in refused.reason


def test_a_question_of_another_policy_keeps_a_finalist_going():
    found = comparison(0.2, gain=(-0.02, -0.03, -0.01), nll_claim=(-0.01, -0.02, 0.001))
    assert settled(["safe"], found, CONTROL, TERMS, {"safe": 0.025})
    accepted = {"safe": 0.025, "calibrated": 0.00625}
    assert not settled(["safe", "calibrated"], found, CONTROL, TERMS, accepted)


def trial(epsilon, accuracies, nll=0.3, aurc=0.02, gap=0.0, risk=0.05):
    seeds = tuple(range(len(accuracies)))

    def near(value):
        return tuple(value * (1 + 0.001 * (place % 3)) for place in seeds)

    metrics = {
        "select/accuracy": tuple(accuracies),
        "select/nll": near(nll),
        "select/nll_calibrated": near(nll),
        "select/aurc_calibrated": near(aurc),
        "select/confidence_gap": near(gap),
    }
    risks = dict.fromkeys(
        ("calibrate_calibrated", "select_calibrated"),
        tuple(tuple(risk * c / 100 for c in range(1, 101)) for _ in seeds),
    )
    name = f"digits/mlp@1#{epsilon}"
    return Outcome(
        name,
        "digits/mlp",
        "s",
        "screen",
        0,
        epsilon,
        10,
        {"epsilon": epsilon},
        seeds,
        metrics,
        {},
        (),
        {},
        1.0,
        "now",
        risks=risks,
    )


def screening(*outcomes, dropped=()):
    return Screening(outcomes, outcomes[0], Prices(), (0.0, 0.4), dropped)


CURVE = {0.0: 0.900, 0.1: 0.916, 0.2: 0.920, 0.3: 0.917, 0.4: 0.905}
NOISE = (-0.0011, 0.0004, 0.0009, -0.0002)


def curved(**changed):
    """Trials along `CURVE`; keyword arguments are functions of ε for the other metrics."""
    trials = []
    for place, (epsilon, accuracy) in enumerate(CURVE.items()):
        noise = [
            0.05 * seed + NOISE[(seed + place) % 4] for seed in range(4)
        ]  # seeds differ by far more than ε does
        trials.append(
            trial(
                epsilon,
                [accuracy - 0.1 + off for off in noise],
                **{name: of(epsilon) for name, of in changed.items()},
            )
        )
    return trials


def test_candidates_lie_between_the_trials():
    chosen = candidates(screening(*curved()), TERMS)
    assert 0.15 <= chosen["accuracy"]["epsilon"] <= 0.25
    assert 0.05 <= chosen["safe"]["epsilon"] <= chosen["accuracy"]["epsilon"]
    assert set(chosen) == set(POLICIES)


def test_safe_looks_among_what_keeps_the_tolerances():
    rising = screening(*curved(nll=lambda epsilon: 0.3 * (1 + 0.1 * epsilon)))
    assert candidates(rising, Terms(tolerances=Tolerances(nll_relative=0.008)))["safe"]["epsilon"] <= 0.08
    assert candidates(rising, Terms(tolerances=Tolerances(nll_relative=0.1)))["safe"]["epsilon"] > 0.08


def test_raw_looks_among_what_keeps_confidence_honest():
    falling = screening(*curved(gap=lambda epsilon: -0.1 * epsilon))
    assert 0 < candidates(falling, Terms("raw"))["raw"]["epsilon"] < 0.1
    assert candidates(falling, TERMS)["safe"]["epsilon"] > 0.05


def test_calibrated_and_utility_follow_their_own_metric():
    found = screening(
        *curved(
            nll=lambda epsilon: 0.3 + (epsilon - 0.3) ** 2, risk=lambda epsilon: 0.05 + (epsilon - 0.1) ** 2
        )
    )
    chosen = candidates(found, TERMS)
    assert chosen["calibrated"]["epsilon"] == pytest.approx(0.3, abs=0.06)
    assert chosen["utility"]["epsilon"] == pytest.approx(0.1, abs=0.06)


def test_prices_decide_what_utility_looks_for():
    trials = curved(risk=lambda epsilon: 0.05 + 0.1 * epsilon)
    assert (
        candidates(Screening(trials, trials[0], Prices(1.0, 0.1, 0.0), (0.0, 0.4)), TERMS)["utility"][
            "epsilon"
        ]
        == 0.0
    )


def test_no_candidate_lies_where_trials_were_dropped():
    trials = curved()
    kept = [one for one in trials if one.epsilon != 0.2]
    dropped = [replace(trials[2], dropped="it was worse")]
    epsilons = screening(*kept, dropped=dropped).epsilons
    assert all(
        abs(epsilon - 0.2) >= min(abs(epsilon - other.epsilon) for other in kept) for epsilon in epsilons
    )
    assert 0.2 not in epsilons
    assert {0.0, 0.1, 0.3} <= set(epsilons)


def test_equal_accuracies_recommend_zero():
    flat = screening(*(trial(epsilon, (0.90, 0.92, 0.91)) for epsilon in CURVE))
    chosen = candidates(flat, TERMS)
    assert chosen["safe"]["epsilon"] == 0.0
    assert chosen["accuracy"]["epsilon"] == 0.0
    found = recommend("safe", chosen["safe"], None, CONTROL, False, TERMS, SOURCE)
    assert found.epsilon == 0
    assert "one standard error" in found.reason


def test_the_key_of_a_point_does_not_depend_on_the_order_of_its_values():
    assert key_of({"epsilon": 0.1, "weight_decay": 0.01}) == key_of({"weight_decay": 0.01, "epsilon": 0.1})
    assert key_of({"epsilon": 0.1}) != key_of({"epsilon": 0.10000001})


def dropped(comparison_at, drop=0.3):
    """The same comparison, of an ε that falls to 0."""
    outcome = comparison_at.outcome
    return replace(comparison_at, outcome=replace(outcome, point={**outcome.point, "drop": drop}))


def both(constant, falling, apart=None, policy="safe", **values):
    """A policy's recommendation where a constant ε and one that falls to 0 were confirmed."""
    chosen = {policy: constant.outcome.point, f"{policy}@drop": falling.outcome.point}
    found = {key_of(one.outcome.point): one for one in (CONTROL, constant, falling)}
    return decide(
        chosen,
        found,
        key_of(CONTROL.outcome.point),
        Terms(policy),
        SOURCE,
        between=lambda *_: apart,
        **values,
    )[policy]


def test_of_two_adopted_schedules_the_dropped_one_is_preferred_unless_it_is_told_worse():
    constant, falling = comparison(0.2, p=0.001), dropped(comparison(0.3, p=0.001))
    for high, preferred in ((-0.0031, "constant"), (-0.0029, "dropped"), (0.01, "dropped")):
        found = both(constant, falling, Interval(-0.005, -0.01, high))
        assert (found.epsilon, found.drop, found.preferred) == (0.2, 1.0, preferred)
        assert (found.dropped.epsilon, found.dropped.drop) == (0.3, 0.3)
        assert found.dropped.smoothing == "uniform@drop:0.3"
        assert found.best.epsilon == (0.2 if preferred == "constant" else 0.3)
        assert found.apart.high == high
    assert both(constant, falling, Interval(0.0, -0.1, 0.1), constant_first=["safe"]).preferred == "constant"


def test_the_bare_number_is_the_constant_epsilon():
    refused, falling = comparison(0.2, p=0.4, gain=(0.001, -0.01, 0.01)), dropped(comparison(0.3, p=0.001))
    found = both(refused, falling)
    assert (found.epsilon, found.best.epsilon, found.preferred, found.apart) == (0.0, 0.3, "dropped", None)
    assert "ε = 0.3 until 30 % is adopted" in found.best.reason
    other = both(comparison(0.2, p=0.001), dropped(comparison(0.3, p=0.4, gain=(0.001, -0.01, 0.01))))
    assert (other.epsilon, other.best.epsilon, other.preferred) == (0.2, 0.2, "constant")
    assert (other.dropped.candidate, other.dropped.candidate_drop) == (0.3, 0.3)


def test_two_own_claims_share_the_weight_of_one():
    """p = 0.02 is enough for one claim of the plan's policy, and for none of two."""
    family = {"calibrated": comparison(0.1, nll_p=0.9)}
    assert accepted({"safe": comparison(0.2, p=0.02), **family}, TERMS)["safe"]
    two = {"safe": comparison(0.2, p=0.02), "safe@drop": dropped(comparison(0.3, p=0.02)), **family}
    assert not any(accepted(two, TERMS).values())
    one = {**two, "safe@drop": dropped(comparison(0.3, p=0.001))}
    assert accepted(one, TERMS) == {"safe": False, "safe@drop": True, "calibrated": False}
    alone = {name: one[name] for name in ("safe", "safe@drop")}
    assert accepted(alone, TERMS) == {"safe": True, "safe@drop": True}


def honest(nll=(-0.02, -0.03, -0.01), gain=(0.0, -0.002, 0.002), p=0.001):
    found = comparison(0.3, gain=gain)
    claims = {**found.claims, "nll": Claim(p, nll[1], nll[2], (4, 8), (nll[0], nll[0]))}
    return replace(found, claims=claims, differences={**found.differences, "nll": Interval(*nll)})


@pytest.mark.parametrize(
    ("found", "adopted"),
    [
        (honest(), True),
        (honest(p=0.2, nll=(-0.02, -0.05, 0.01)), False),  # NLL is not told lower
        (honest(gain=(-0.001, -0.0031, 0.002)), False),  # accuracy may be worse by more than 0.3 pp
        (honest(gain=(-0.001, -0.0029, 0.002)), True),
    ],
)
def test_honest_takes_a_lower_nll_at_an_accuracy_that_is_not_told_worse(found, adopted):
    assert (decision_of("honest", found).epsilon == 0.3) is adopted


def test_safe_judges_each_epsilon_after_its_own_recalibration():
    found = comparison(0.2, aurc=(0.2, 0.1, 0.3), nll=0.05)
    assert decision_of("safe", found).epsilon == 0  # after temperature it is harmful
    repaired = replace(
        found,
        recalibrator="sms",
        claims={**found.claims, "aurc_recalibrated": Claim(0.5, -0.01, 0.04, (4, 8), (0.0, 0.0))},
        relative={
            **found.relative,
            "aurc_recalibrated": Interval(0.01, -0.01, 0.04),
            "nll_recalibrated": Interval(0.002, -0.01, 0.01),
        },
    )
    safe = decision_of("safe", repaired)
    assert (safe.epsilon, safe.recalibrator) == (0.2, "sms")
    assert "AURC after structured matrix scaling (ε = 0: temperature) changes" in safe.conditions[1].sentence
    raw = decision_of("raw", repaired)
    assert (raw.epsilon, raw.recalibrator) == (0.0, "temperature")


HALVES = (0.30, 0.31, 0.29, 0.305, 0.30, 0.295, 0.31, 0.30)


@pytest.mark.parametrize(
    ("nll", "sound"),
    [
        (HALVES, True),
        (tuple(value + (0.2 if place >= 4 else 0) for place, value in enumerate(HALVES)), False),
        (tuple(value + 0.01 * (place >= 4) for place, value in enumerate(HALVES)), True),
        ((0.3, 0.3, 0.9), True),  # too few seeds to tell
        ((0.3,) * 8, True),
        ((0.3,) * 4 + (0.4,) * 4, False),
    ],
)
def test_halves_of_the_seeds_at_zero_that_differ_make_a_sweep_invalid(nll, sound):
    outcome = replace(CONTROL.outcome, seeds=tuple(range(len(nll))), metrics={"test/nll": nll})
    assert (unlike(outcome) == "") is sound
    control = replace(CONTROL, outcome=outcome)
    constant = comparison(0.2, p=0.001)
    found = decide(
        {"safe": constant.outcome.point},
        {key_of(one.outcome.point): one for one in (control, constant)},
        key_of(control.outcome.point),
        TERMS,
        SOURCE,
    )["safe"]
    assert (found.invalid == "") is sound
    assert found.epsilon == (0.2 if sound else 0.0)
    assert (
        sentences({"safe": found}, "safe")[0].startswith("INVALID: at ε = 0 the first 4 seeds") is not sound
    )


def test_a_sound_sweep_is_hardly_ever_called_invalid():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        nll, brier = random.lognormal(-1, 0.1, 8), random.normal(0.2, 0.01, 8)
        metrics = {"test/nll": tuple(nll.tolist()), "test/brier": tuple(brier.tolist())}
        wrong += unlike(replace(CONTROL.outcome, seeds=tuple(range(8)), metrics=metrics)) != ""
    assert wrong <= 8  # 0.1 % of 2000 is 2
