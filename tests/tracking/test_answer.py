"""The three sentences: what they say in each case, and that every place says the same."""

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import made
import pytest
from published import publish
from starlette.testclient import TestClient

from lscal.calibrators.temperature import HIGHEST, LOWEST
from tracking import recommendation, recommended_epsilon
from tracking.api.routes import application
from tracking.decision.conditions import COUNTED
from tracking.decision.recommend import LEAST_TEMPERATURE, MOST_TEMPERATURE, Source, recommend, temperature_of
from tracking.decision.screening import Screening
from tracking.decision.sequential import seeds_to_settle
from tracking.decision.terms import Terms
from tracking.decision.verdict import verdict
from tracking.diff import main as diff
from tracking.mlflow import note
from tracking.numbers import number, plain
from tracking.recommend import main
from tracking.records.evidence import Evidence
from tracking.records.outcome import Interval
from tracking.records.recommendation import Recommendation
from tracking.report import page, summary
from tracking.report.answer import sentences

OLDER = Path(__file__).with_name("older")
"""Records as they were written before they had a temperature, a verdict, or the ε that cannot be told apart
(commit c3a2286).
"""
FOUND = made.evidence(pictures=False, instances=False)
SAFE, RAW = FOUND.recommendations["safe"], FOUND.recommendations["raw"]
PAGE = {"page": "file:///tmp/page.html"}


def said(policy="safe", other=None, **changes):
    """The sentences where the plan's policy's record differs so."""
    recommendations = {**FOUND.recommendations, policy: replace(FOUND.recommendations[policy], **changes)}
    return sentences(recommendations | (other or {}), policy)


def numbers(text):
    """The numbers in a text."""
    return re.findall(r"[+−-]?\d+(?:\.\d+)?", " ".join(text.split()))


# ---- what they say
# --------------------------------------------------------------------------------------------------


def test_the_first_sentence_gives_epsilon_temperature_accuracy_and_error():
    delta = FOUND.comparisons[1].claims["accuracy"]
    before, after = (100 * one.estimates["ece"].value for one in FOUND.comparisons[:2])
    repaired = 100 * FOUND.comparisons[1].estimates["ece_calibrated"].value
    kept = FOUND.comparisons[1].outcome.temperature
    assert (
        said()[0]
        == f"Train with label_smoothing=0.1 and divide logits by T = {sum(kept) / len(kept):.2f} (fitted on"
        f" 270 examples): accuracy +{100 * SAFE.delta_accuracy.value:.1f} pp [+{100 * delta.low:.1f},"
        f" +{100 * delta.high:.1f}], ECE {before:.1f} → {after:.1f} %, {repaired:.1f} % after T."
    )


def test_the_second_sentence_is_the_opposite_case():
    gap = FOUND.comparisons[1].estimates["confidence_gap"].value
    assert gap < -0.05
    assert said()[1] == f"Cannot recalibrate? Use 0: at 0.1 confidence is {-100 * gap:.1f} points too low."
    assert sentences(FOUND.recommendations, "raw")[1].startswith(
        "Can you recalibrate? Use 0.1 and divide logits by T = 1.37 (fitted on 270 examples):"
    )
    agreed = replace(
        SAFE, policy="raw", estimates={**SAFE.estimates, "confidence_gap": Interval(0.004, 0.0, 0.01)}
    )
    assert (
        said(other={"raw": agreed})[1]
        == "Cannot recalibrate? 0.1 as well: confidence is 0.4 points too high."
    )
    assert sentences({"safe": SAFE, "raw": agreed}, "raw") == [
        "Train with label_smoothing=0.1: accuracy +1.3 pp [+1.0, +1.7], ECE 4.1 → 8.9 %.",
        (
            "Can you recalibrate? 0.1 as well, and divide logits by T = 1.37 (fitted on 270 examples): ECE is"
            " 3.6 % then."
        ),
        "0.05 to 0.3 cannot be told apart; 0.1 stands for them.",
    ]
    assert sentences({"safe": SAFE}, "safe")[1] == "0.05 to 0.3 cannot be told apart; 0.1 stands for them."


def test_the_third_sentence_gives_the_range_and_the_places():
    third = sentences(FOUND.recommendations, "safe", {**PAGE, "MLflow": "http://127.0.0.1:5000"})[2]
    assert (
        third == "0.05 to 0.3 cannot be told apart; 0.1 stands for them. Why, and what would change it: page"
        " file:///tmp/page.html · MLflow http://127.0.0.1:5000"
    )
    assert said(tied=(0.1, 0.1))[2] == "No other ε ties with 0.1 and keeps the tolerances."
    assert said(tied=(0.0, 0.05), epsilon=0.0)[2] == "0 to 0.05 cannot be told apart."
    assert (
        said(epsilon=0.0)[2]
        == "0.05 to 0.3 cannot be told apart; 0.1 stands for them, and was put to the test."
    )


ZERO = {"epsilon": 0.0, "point": {"epsilon": 0.0}, "temperature": 1.6}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "worse"}, "; 0.1 is worse (accuracy +1.3 pp [+1.0, +1.7])."),
        (
            {"verdict": "practically the same"},
            "; 0.1 is practically the same (accuracy +1.3 pp [+1.0, +1.7]: within ±0.3 pp).",
        ),
        (
            {"verdict": "not known", "settles": "8 more seeds would"},
            "whether 0.1 is better is not known (accuracy +1.3 pp [+1.0, +1.7]; 8 more seeds would).",
        ),
        (
            {"candidate": 0.0, "differences": {}, "verdict": None},
            "ahead in accuracy by more than one standard error of the fit through all trials.",
        ),
        (
            {"differences": {}, "verdict": None, "reason": "The candidate ε = 0.1 diverged."},
            "; the candidate ε = 0.1 diverged.",
        ),
    ],
)
def test_where_zero_is_recommended_it_says_what_the_candidate_did(changes, words):
    first = said(**ZERO, **changes)[0]
    assert first.startswith(
        "Train without label smoothing (0) and divide logits by T = 1.60 (fitted on 270 examples): ECE 8.9 %,"
        " 3.6 % after T; "
    )
    assert first.endswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"smoothing": "class_prior"},
            "Train with ε = 0.1 of smoothing class_prior (docs/smoothing.md of lscal) and divide",
        ),
        (
            {"epsilon": -0.05},
            "Train with ε = −0.05 of smoothing uniform (docs/smoothing.md of lscal) and divide",
        ),
        ({"epsilon": -0.0}, "Train without label smoothing (0) and divide"),
        ({"epsilon": 0.10800000000000001}, "label_smoothing=0.108 and"),
        (
            {"point": {"epsilon": 0.1, "weight_decay": 0.0123456}},
            "label_smoothing=0.1, weight_decay=0.01235 and divide",
        ),
        (
            {"temperature": 0.01, "at_bound": 3},
            "T = 0.01 (fitted on 270 examples, which have no best T with 3 of 16 seeds)",
        ),
        ({"temperature": 0.0434}, "T = 0.043 (fitted"),
        ({"calibrate_examples": None}, "divide logits by T = 1.37: accuracy"),
        (
            {"temperature": None},
            (
                "divide logits by a temperature fitted on held-out examples (this older version does not say"
                " which): accuracy"
            ),
        ),
        (
            {"verdict": "practically the same"},
            "accuracy +1.3 pp [+1.0, +1.7] (practically the same: within ±0.3 pp), ECE",
        ),
        (
            {"claimed": "bleu", "differences": {**SAFE.differences, "bleu": Interval(0.008, 0.002, 0.014)}},
            ": BLEU +0.8 [+0.2, +1.4], ECE",
        ),
    ],
)
def test_it_says_what_to_train_with(changes, words):
    assert words in said(**changes)[0]


def test_policies_say_what_they_claim():
    cost, nll = SAFE.differences["cost"], FOUND.recommendations["calibrated"].differences["nll_calibrated"]
    utility, calibrated = (sentences(FOUND.recommendations, name)[0] for name in ("utility", "calibrated"))
    assert (
        "fitted on 270 examples) and decide the surest 93 % without a review: expected cost −0.0019 ["
        in utility
    )
    assert cost.value == pytest.approx(-0.0019, abs=5e-5)
    assert (
        "label_smoothing=0.25 and divide logits by T = 1.05 (fitted on 270 examples): NLL after T"
        f" {nll.value:+.3f} [" in calibrated
    )
    assert "and review all:" in said("utility", coverage=0.0)[0]
    assert "and decide all without a review:" in said("utility", coverage=1.0)[0]


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.0147, 0.0098, 0.0203, "+1.5 pp [+1.0, +2.0]"),
        (0.0031, 0.0015, 0.0047, "+0.31 pp [+0.15, +0.47]"),
        (0.005, 0.0002, 0.0098, "+0.50 pp [+0.02, +0.98]"),
        (0.0, -0.001, 0.001, "0.00 pp [−0.10, +0.10]"),
        (-0.0123, -0.02, -0.0046, "−1.2 pp [−2.0, −0.5]"),
        (0.02, float("-inf"), float("inf"), "accuracy +2.0 pp, ECE"),
    ],
)
def test_numbers_have_as_many_decimals_as_they_need(value, low, high, text):
    assert text in said(differences={"accuracy": Interval(value, low, high)})[0]


def test_no_number_shows_its_binary_fraction_or_a_negative_zero():
    assert (plain(0.1 + 0.008), plain(-0.0), plain(0.1 * 3), number(-0.04, 1), number(-0.06, 1)) == (
        "0.108",
        "0",
        "0.3",
        "0.0",
        "−0.1",
    )


# ---- the verdict
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "better", "effect", "accepted", "word"),
    [
        (0.001, 0.02, 1, 0.003, True, "better"),
        (0.001, 0.02, 1, 0.003, False, "not known"),
        (0.001, 0.003, 1, 0.003, True, "practically the same"),
        (-0.003, 0.003, 1, 0.003, False, "practically the same"),
        (-0.0031, 0.003, 1, 0.003, False, "not known"),
        (-0.02, -0.001, 1, 0.003, False, "worse"),
        (-0.02, -0.001, -1, 0.0, True, "better"),
        (0.001, 0.02, -1, 0.0, True, "worse"),
        (0.0, 0.0, 1, 0.0, True, "not known"),
    ],
)
def test_a_verdict_is_one_of_four(low, high, better, effect, accepted, word):
    assert verdict(Interval((low + high) / 2, low, high), better, effect, accepted) == word


def judged(value, half, taken=False, name="accuracy", effect=0.003, seeds=8, own=0.005):
    """What is recommended where the candidate's accuracy differs so."""
    control, chosen, _ = FOUND.comparisons
    short = replace(chosen.outcome, seeds=tuple(range(seeds)))
    found = Interval(value, value - half / 2, value + half / 2, 0.0005, own, 50.0)
    claim = replace(chosen.claims["accuracy"], low=value - half, high=value + half)
    changed = replace(
        chosen,
        outcome=short,
        differences={**chosen.differences, "accuracy": found},
        claims={**chosen.claims, "accuracy": claim},
    )
    terms = Terms(name, effect=effect)
    source = Source("s", None, "uniform", 629, 1, "now", 270)
    return recommend(name, chosen.outcome.point, changed, control, taken, terms, source, (0.05, 0.3))


def test_a_decision_carries_the_whole_answer():
    control, chosen, _ = FOUND.comparisons
    found = judged(0.01, 0.005, taken=True)
    temperatures = chosen.outcome.temperature
    assert (found.epsilon, found.verdict, found.settles) == (0.1, "better", "")
    assert found.temperature == pytest.approx(sum(temperatures) / len(temperatures))
    assert (found.calibrate_examples, found.tied, found.effect, found.at_bound) == (
        270,
        (0.05, 0.3),
        0.003,
        0,
    )
    assert {
        "ece",
        "ece_calibrated",
        "nll",
        "nll_calibrated",
        "aurc",
        "aurc_calibrated",
        "confidence_gap",
        "confidence_gap_calibrated",
    } < set(found.control)
    assert found.control["ece"] == control.estimates["ece"]
    assert found.estimates["ece"] == chosen.estimates["ece"] == found.ece
    assert found.differences["ece"] == chosen.differences["ece"]
    assert (found.differences["accuracy"].low, found.differences["accuracy"].high) == pytest.approx(
        (0.005, 0.015)
    )
    assert found.differences["accuracy"] == found.delta_accuracy
    assert Recommendation.from_json(found.to_json()) == found


def test_a_refused_candidate_is_still_told_of():
    found = judged(0.001, 0.008)
    assert (found.epsilon, found.verdict) == (0.0, "not known")
    assert found.differences["accuracy"].value == 0.001
    assert found.delta_accuracy.value == 0.0
    assert found.estimates == found.control
    assert found.temperature == pytest.approx(sum(FOUND.comparisons[0].outcome.temperature) / 16)


@pytest.mark.parametrize("value", [0.0008, -0.0008, 0.002, -0.002, 0.006, -0.006])
def test_what_is_not_known_says_what_it_would_take(value):
    found = judged(value, 0.008)
    more = int(re.match(r"(\d+) more seeds would settle it", found.settles)[1])
    assert f"--confirm-seeds {8 + more} --reopen-test" in found.settles
    executions = [(0.0, 1 if value > 0 else -1)] + (
        [(0.003 if value > 0 else -0.003, -1 if value > 0 else 1)] if abs(value) < 0.003 else []
    )
    interval = Interval(value, 0.0, 0.0, 0.0005, 0.005, 50.0)
    assert more == min(
        count for execution in executions if (count := seeds_to_settle(interval, 8, *execution))
    )


def test_a_gain_whose_claim_is_not_accepted_is_not_known_and_says_why():
    found = judged(0.01, 0.005, taken=False)
    assert (found.epsilon, found.verdict, found.settles) == (0.0, "not known", COUNTED)


def test_no_gain_of_interest_is_told_from_not_known():
    assert judged(0.0005, 0.002).verdict == "practically the same"
    assert judged(-0.01, 0.002).verdict == "worse"


def test_a_temperature_at_the_end_of_its_range_is_left_out_and_counted():
    outcome = FOUND.comparisons[0].outcome
    assert (LEAST_TEMPERATURE, MOST_TEMPERATURE) == (LOWEST, HIGHEST)
    assert temperature_of(replace(outcome, temperature=(0.5, 0.7, HIGHEST))) == (
        pytest.approx(0.6),
        1,
    )
    assert temperature_of(replace(outcome, temperature=(LOWEST, LOWEST))) == (LOWEST, 2)
    assert temperature_of(replace(outcome, temperature=())) == (None, 0)


# ---- the same everywhere
# -----------------------------------------------------------------------------------------------


class Hero(HTMLParser):
    """The text of the page's first section."""

    def __init__(self, text):
        super().__init__()
        self.inside, self.text = False, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside |= dict(attributes).get("class") == "hero"

    def handle_endtag(self, tag):
        self.inside &= tag != "section"

    def handle_data(self, data):
        self.text += data if self.inside else ""


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("policy", ["safe", "raw", "utility"])
def test_every_place_says_the_same(adopted, policy, client, uri, capsys, monkeypatch):
    found = replace(made.evidence(adopted=adopted, pictures=False, instances=False), policy=policy)
    number_of, run = publish(client, found)
    terminal = sentences(found.recommendations, policy)
    assert len(terminal) == 3
    record = found.recommendations[policy]

    assert main([found.task, "--tracking-uri", uri]) == 0
    assert capsys.readouterr().out == f"{record.epsilon:g}\n"
    assert main([found.task, "--tracking-uri", uri, "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    body = TestClient(application(uri)).get(f"/v1/tasks/{found.task}/recommendation").json()
    plain_body = (
        TestClient(application(uri))
        .get(f"/v1/tasks/{found.task}/recommendation", headers={"accept": "text/plain"})
        .text
    )
    assert plain_body == f"{record.epsilon:g}\n"
    version = client.get_model_version("digits--mlp", str(number_of))
    told = note.of_sweep(replace(found, run_id=run), [], note.Places("1", run, number_of, False))
    hero = Hero(page.page(found)).text
    for sentence in terminal:
        for place in (
            " ".join(as_json["answer"]),
            " ".join(body["answer"]),
            version.description,
            version.tags["answer"],
            told,
            hero,
        ):
            assert sentence in place
    assert told.startswith(f"**{terminal[0]}**\n\n{terminal[1]}\n\n{terminal[2]}\n\n")

    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main([found.task, "--tracking-uri", uri, "--explain"]) == 0
        lines = capsys.readouterr().out.splitlines()
        explained = " ".join(lines)
        assert all(sentence in explained for sentence in terminal)
        assert all(len(line) <= columns or " " not in line for line in lines)
        assert numbers(explained)[: len(numbers(" ".join(terminal)))] == numbers(" ".join(terminal))

    for values in (as_json, body):
        assert (
            Recommendation.from_json(json.dumps(values))
            == recommendation(found.task, tracking_uri=uri)
            == record
        )
        assert (values["temperature"], values["tied"], values["verdict"]) == (
            record.temperature,
            [0.05, 0.3],
            record.verdict,
        )
        assert set(values["policies"]) == set(found.recommendations) - {policy}
        for name, short in values["policies"].items():
            other = found.recommendations[name]
            assert (short["epsilon"], short["temperature"], short["verdict"]) == (
                other.epsilon,
                other.temperature,
                other.verdict,
            )
            assert short["answer"] == sentences(found.recommendations, name)[0]
    tags = version.tags
    assert (float(tags["epsilon"]), float(tags["temperature"])) == (
        record.epsilon,
        pytest.approx(record.temperature, rel=1e-5),
    )
    assert (tags["tied"], tags.get("verdict")) == ("0.05 0.3", record.verdict)
    assert max(len(value) for value in tags.values()) < 20_000
    shown = f"{record.temperature:.2f}"
    assert (f"T = {shown}" in terminal[0]) == (policy != "raw")
    assert (f"T\u00a0=\u00a0{shown}" in hero) == (policy != "raw")


def test_the_places_are_added_by_those_who_know_them(client, uri, capsys):
    publish(client, FOUND)
    assert main(["digits/mlp", "--tracking-uri", uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"][-1].endswith(
        "it: page http://127.0.0.1:8000/v1/tasks/digits/mlp/page?version=1 (by python -m tracking.serve)"
    )
    body = TestClient(application(uri)).get("/v1/tasks/digits/mlp/recommendation").json()
    assert body["answer"][-1].endswith(
        "Why, and what would change it: page /v1/tasks/digits/mlp/page?version=1"
    )


def test_on_a_terminal_the_bare_number_has_its_temperature_beside_it(client, uri):
    publish(client, FOUND)
    for policy, told in (("safe", "divide logits by T = 1.37 (fitted on 270 examples)"), ("raw", "")):
        leader, follower = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "tracking.recommend",
            "digits/mlp",
            "--policy",
            policy,
            "--tracking-uri",
            uri,
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, env=environment, check=True)
        os.write(follower, b"end\n")
        assert done.stdout == {"safe": b"0.1\n", "raw": b"0\n"}[policy]
        assert (
            os.read(leader, 4096)
            .decode()
            .startswith(f"A temperature belongs to it: {told}" if told else "end")
        )
        os.close(leader)
        os.close(follower)
    done = subprocess.run(command[:-4] + command[-2:], capture_output=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == (b"0.1\n", b"")


def test_sentences_are_readable_where_json_is_printed(client, uri, capsys):
    publish(client, FOUND)
    assert main(["digits/mlp", "--tracking-uri", uri, "--json"]) == 0
    body = TestClient(application(uri)).get("/v1/tasks/digits/mlp/recommendation").content.decode()
    assert sentences(FOUND.recommendations, "safe")[0] in capsys.readouterr().out
    assert sentences(FOUND.recommendations, "safe")[0] in body


def test_a_table_of_differences_says_whose_error_it_gives():
    screening = Screening(FOUND.outcomes, FOUND.outcomes[0], made.PRICES, (0.0, 0.4))
    fit = screening.fit("accuracy")
    table = summary.differences(FOUND.outcomes, FOUND.outcomes[0], fit)
    assert table.header[:3] == ("ε", "Δ accuracy %", "by the fit")
    assert "of that trial alone" in table.title
    assert "which candidates are chosen by" in table.title
    shift = fit.shift([one.point for one in FOUND.outcomes[1:]], FOUND.outcomes[0].point)
    for row, value, error in zip(table.rows, shift.value, shift.error, strict=True):
        assert row[2] == f"{100 * value:+.2f} ±{100 * error:.2f}"
        assert len(row) == len(table.header)
    alone = summary.differences(FOUND.outcomes, FOUND.outcomes[0])
    assert [row[:1] + row[2:] for row in alone.rows] == [row[:1] + row[3:] for row in table.rows]
    assert "fit" not in alone.title


# ---- older records
# --------------------------------------------------------------------------------------------------


def test_an_older_record_is_read_and_says_what_is_known(client, uri, capsys, tmp_path):
    older = Evidence.from_json((OLDER / "evidence.json").read_text())
    alone = (OLDER / "recommendation.json").read_text()
    record = Recommendation.from_json(alone)
    assert older.recommendations["safe"] == record
    assert (record.temperature, record.tied, record.verdict, record.differences) == (None, None, None, {})
    publish(client, older)
    assert recommended_epsilon("digits/mlp", tracking_uri=uri) == 0.1
    assert main(["digits/mlp", "--tracking-uri", uri, "--explain"]) == 0
    explained = " ".join(capsys.readouterr().out.split())
    assert (
        "a temperature fitted on held-out examples (this older version does not say which): accuracy +1.2 pp"
        " [+0.5, +1.9], ECE 8.9 %" in explained
    )
    assert "Cannot recalibrate? Use 0: at 0.1 ECE is 8.9 % without T." in explained
    assert "None" not in explained
    body = TestClient(application(uri)).get("/v1/tasks/digits/mlp/recommendation?policy=raw").json()
    assert body["epsilon"] == 0
    assert body["answer"][0].startswith(
        "Train without label smoothing (0): ECE 3.9 %; the candidate ε = 0.1 is not adopted: "
    )
    version = client.get_model_version("digits--mlp", "1")
    assert {"temperature", "tied", "verdict"} & set(version.tags) == set()
    assert "None" not in Hero(page.page(older)).text + version.description + version.tags["answer"]
    Path(tmp_path, "now.json").write_text(FOUND.recommendations["safe"].to_json())
    assert diff([str(OLDER / "recommendation.json"), str(tmp_path / "now.json")]) == 0
    table = capsys.readouterr().out
    assert re.search(r"temperature +- +1\.367", table)
    assert re.search(r"ε not told apart +- +0\.05 to 0\.3", table)


def test_a_tag_or_record_of_a_later_version_is_read_without_what_is_not_known_here():
    values = json.loads(SAFE.to_json()) | {"invented_later": 3}
    assert Recommendation.from_json(json.dumps(values)) == SAFE
