import json
import math
from dataclasses import replace
from pathlib import Path

import made
import pytest
from fastapi.testclient import TestClient
from published import publish

from tracking.api.routes import application
from tracking.mlflow.versions import Version
from tracking.outbox.outbox import OutboxEntry, Record
from tracking.recommend import main
from tracking.records.evidence import Evidence
from tracking.records.outcome import Bins, Interval, Outcome
from tracking.records.recommendation import Recommendation
from tracking.records.schema import SCHEMA, WrongRecord

OLDER = Path(__file__).parent / "older"


def part(seeds, accuracy, count, confidence, right):
    bins = Bins(count, confidence, right, 0.1 * len(seeds), 0.2)
    return Outcome(
        f"uid{seeds[0]}",
        "digits/mlp",
        "s",
        "confirm",
        0,
        0.1,
        10,
        {"epsilon": 0.1},
        seeds,
        {"test/accuracy": accuracy},
        {"select_accuracy": (accuracy[0], accuracy[0] + 0.1)},
        tuple(1.0 for _ in seeds),
        {"test": bins},
        2.0,
        f"2026-01-0{seeds[0]}",
        risks={"test": tuple((0.1, 0.2) for _ in seeds)},
    )


def test_batches_of_seeds_join_to_one_outcome():
    first = part((1,), (0.8,), (0, 2, 1), (None, 0.5, 0.9), (None, 0.5, 1.0))
    second = part((2, 3, 4), (0.9, 0.7, 0.6), (0, 0, 3), (None, None, 0.7), (None, None, 0.0))
    whole = Outcome.joined([first, second])
    assert whole.seeds == (1, 2, 3, 4)
    assert whole.mean("test/accuracy") == pytest.approx(0.75)
    assert whole.curves["select_accuracy"] == pytest.approx(((0.8 + 3 * 0.9) / 4, (0.9 + 3 * 1.0) / 4))
    bins = whole.bins["test"]
    assert bins.count == (0, 2, 4)
    assert bins.confidence == (None, 0.5, pytest.approx((0.9 + 3 * 0.7) / 4))
    assert bins.accuracy == (None, 0.5, pytest.approx(0.25))
    assert bins.gap == pytest.approx((0.1 + 3 * 0.3) / 4)
    assert (whole.seconds, whole.finished, len(whole.risks["test"]), len(whole.temperature)) == (
        4.0,
        "2026-01-02",
        4,
        4,
    )


def test_an_outcome_alone_joins_to_itself():
    alone = part((1, 2), (0.8, 0.9), (0, 2, 1), (None, 0.5, 0.9), (None, 0.5, 1.0))
    assert Outcome.joined([alone]) == alone


def test_the_standard_error_has_a_part_that_seeds_do_not_shrink():
    found = Interval(0.01, 0.0, 0.02, examples=0.003, seeds=0.008)
    assert found.error(4) == pytest.approx(0.005)
    assert found.error(10**12) == pytest.approx(0.003)


def test_evidence_comes_back_from_json_as_it_was():
    evidence = made.evidence()
    assert Evidence.from_json(evidence.to_json()) == evidence
    json.loads(evidence.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_recommendation_comes_back_from_json_with_its_infinite_freedom():
    recommendation = made.evidence().recommendations["safe"]
    assert Recommendation.from_json(recommendation.to_json()) == recommendation
    assert math.isinf(Interval(0, 0, 0).freedom)


def test_an_outbox_entry_of_an_older_version_is_read():
    (path,) = OLDER.glob("*.zip")
    record, files = OutboxEntry.of(path).read()
    assert (record.outcome.epsilon, record.about.facts.digest, files) == (
        0.05,
        "0123456789abcdef",
        {"logits/select.npz": b"old"},
    )
    assert record.outcome.calibrate_examples == 0  # it was not written then
    assert '"schema": 1' in record.to_json()
    assert Record.from_json(record.to_json()) == record


def test_tags_of_an_older_version_are_read():
    tags = json.loads((OLDER / "version.json").read_text())["tags"]
    found = Version.of(1, tags, True).recommendations()
    assert {name: (one.epsilon, one.temperature) for name, one in found.items()} == {
        "accuracy": (0.25, None),
        "calibrated": (0.25, None),
        "raw": (0.0, None),
        "safe": (0.1, None),
        "utility": (0.1, None),
    }


RECORDS = {
    Evidence: made.evidence(),
    Outcome: made.evidence().outcomes[1],
    Recommendation: made.evidence().recommendations["safe"],
}


@pytest.mark.parametrize(
    ("kind", "path", "value", "sentence"),
    [
        (Outcome, "epsilon", "0.1", "x.json: epsilon is '0.1'; wanted a valid number."),
        (Outcome, "epsilon", math.nan, "x.json: epsilon is nan; wanted less than 1."),
        (Outcome, "epsilon", 1.0, "x.json: epsilon is 1.0; wanted less than 1."),
        (Outcome, "stage", "proof", "x.json: stage is 'proof'; wanted 'pilot', 'screen' or 'confirm'."),
        (Outcome, "seeds", [1, "two"], "x.json: seeds.1 is 'two'; wanted a valid integer."),
        (Outcome, "metrics", None, "x.json: metrics is None; wanted an object."),
        (Recommendation, "accuracy.value", "much", "x.json: accuracy.value is 'much'; wanted a number."),
        (Recommendation, "coverage", 1.2, "x.json: coverage is 1.2; wanted less than or equal to 1.000001."),
        (Recommendation, "temperature", -1.0, "x.json: temperature is -1.0; wanted greater than 0."),
        (Recommendation, "schema", 2, "x.json: schema is 2; wanted at most 1. Update lscal."),
        (
            Evidence,
            "outcomes.1.epsilon",
            0.5,
            "x.json: ε of trial 1 is 0.5; wanted 0, or 0 to 0.4 as in the plan.",
        ),
        (
            Evidence,
            "recommendations.raw.epsilon",
            -0.1,
            "x.json: ε of raw is -0.1; wanted 0, or 0 to 0.4 as in the plan.",
        ),
        (Evidence, "schema", "1", "x.json: schema is '1'; wanted at most 1. Update lscal."),
    ],
)
def test_what_is_wrong_with_a_record_is_one_sentence(kind, path, value, sentence):
    values = json.loads(RECORDS[kind].to_json())
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = values
    for part in way:
        place = place[part]
    place[last] = value
    with pytest.raises(WrongRecord) as raised:
        kind.from_json(json.dumps(values), "x.json")
    assert str(raised.value) == sentence


@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_missing_and_what_is_no_json_is_one_sentence(kind):
    values = json.loads(RECORDS[kind].to_json())
    assert values.pop("schema") == SCHEMA
    assert kind.from_json(json.dumps(values)) == RECORDS[kind]
    del values["task"]
    with pytest.raises(WrongRecord, match=r"^x.json: task is missing\.$"):
        kind.from_json(json.dumps(values), "x.json")
    for text in ("", "{", "\x00"):
        with pytest.raises(WrongRecord, match=r"^x.json is no JSON: .*line 1 column \d+\.$"):
            kind.from_json(text, "x.json")
    with pytest.raises(WrongRecord, match=r"^x.json: it is \[\]; wanted "):
        kind.from_json("[]", "x.json")


def test_numbers_that_json_has_not_come_back_as_what_they_were():
    outcome = replace(RECORDS[Outcome], metrics={"select/accuracy": (math.nan, math.inf, 0.5)})
    found = Outcome.from_json(outcome.to_json()).metrics["select/accuracy"]
    assert math.isnan(found[0])
    assert found[1:] == (math.inf, 0.5)
    evidence = replace(RECORDS[Evidence], outcomes=(outcome,))
    assert math.isnan(Evidence.from_json(evidence.to_json()).outcomes[0].metrics["select/accuracy"][0])
    wide = replace(RECORDS[Recommendation], accuracy=Interval(0.9, -math.inf, math.inf))
    assert Recommendation.from_json(wide.to_json()) == wide


def test_a_tag_that_was_edited_is_named_by_the_command_and_by_the_api(client, uri, capsys):
    publish(client, made.evidence())
    values = json.loads(RECORDS[Recommendation].to_json()) | {"epsilon": 7}
    client.set_model_version_tag("digits--mlp", "1", "recommendation.safe", json.dumps(values))
    told = "tag recommendation.safe of version 1 of digits/mlp: epsilon is 7; wanted less than 1."
    assert main(["digits/mlp", "--tracking-uri", uri]) == 1
    assert capsys.readouterr().err == f"error: {told}\n"
    answer = TestClient(application(uri)).get("/v1/tasks/digits/mlp/recommendation")
    assert (answer.status_code, answer.json()["detail"]) == (404, told)
