"""What changed between two recommendations."""

from dataclasses import replace

import pytest
from made import evidence
from published import made, publish

from tracking.diff import Side, changes, main, sentences
from tracking.records.comparison import Chance

OLD = made(epsilon=0.1)
NEW = made(epsilon=0.25, created="2026-12-01T00:00:00+00:00")


def side(found, **values):
    return Side("x", replace(found.recommendations["safe"], **values), found.facts)


def test_equal_recommendations_differ_in_nothing(tmp_path, capsys):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(OLD.to_json())
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert capsys.readouterr().out == "a.json and b.json say the same.\n"


def test_every_field_of_a_recommendation_which_differs_is_a_row():
    """All fields changed one at a time; only `reason` and the run are prose about the others."""
    old = side(OLD)
    record = old.recommendation
    shifted = replace(record.accuracy, value=0.5)
    other = {
        "task": "a/b",
        "epsilon": 0.3,
        "epsilon_wrong_classes": 0.27,
        "smoothing": "prior",
        "point": {"epsilon": 0.1, "weight_decay": 0.5},
        "policy": "raw",
        "accuracy": shifted,
        "ece": shifted,
        "ece_calibrated": shifted,
        "aurc": shifted,
        "delta_accuracy": shifted,
        "candidate": 0.3,
        "conditions": (),
        "seeds": 99,
        "examples": 7,
        "coverage": 0.5,
        "openings": 9,
        "study": "other",
        "created": "later",
        "temperature": 0.5,
        "at_bound": 2,
        "calibrate_examples": 4,
        "control": {**record.control, "nll": shifted},
        "estimates": {},
        "differences": {**record.differences, "nll": shifted},
        "tied": (0.1, 0.2),
        "claimed": "bleu",
        "verdict": "not known",
        "settles": "seeds",
        "effect": 0.01,
        "incumbent": 0.05,
        "training": "01234567",
        "dropped": replace(record, epsilon=0.3, point={"epsilon": 0.3, "drop": 0.3}),
        "preferred": "dropped",
        "candidate_drop": 0.3,
        "chance": Chance(0.9, 0.001),
        "invalid": "halves differ",
        "recalibrator": "sms",
        "apart": shifted,
    }
    assert set(vars(record)) - set(other) == {"reason", "run_id"}
    for name, value in other.items():
        assert changes(old, replace(old, recommendation=replace(record, **{name: value}))), name
    assert changes(old, old) == []
    rows = changes(old, replace(old, facts={**old.facts, "epochs": "99", "new": "1"}))
    assert [(row.what, row.before, row.after) for row in rows] == [
        ("epochs", old.facts["epochs"], "99"),
        ("new", "", "1"),
    ]


def test_the_words_name_the_condition_that_flipped():
    conditions = OLD.recommendations["safe"].conditions
    flipped = (replace(conditions[0], met=not conditions[0].met, sentence="It failed."), *conditions[1:])
    said = sentences(side(OLD), side(NEW, conditions=flipped))
    assert said[0] == "The recommended ε rises from 0.1 to 0.25."
    named = [sentence for sentence in said if "condition" in sentence]
    assert len(named) == 1
    assert conditions[0].name in named[0]
    assert "no longer met" in named[0]
    assert "It failed." in named[0]


def test_more_seeds_of_the_same_study_are_told_from_another_study():
    assert "It is the same study with 99 confirmation seeds instead of 16." in sentences(
        side(OLD), side(OLD, seeds=99)
    )
    assert "It rests on another study: b instead of a." in sentences(
        side(OLD, study="a"), side(OLD, study="b")
    )


def test_published_versions_are_compared_with_the_recipes_of_their_runs(client, uri, capsys):
    publish(client, OLD, {"epochs": "50", "optimiser": "adamw"})
    publish(client, NEW, {"epochs": "80", "optimiser": "adamw"})
    assert main(["digits/mlp", "1", "2", "--tracking-uri", uri]) == 0
    out = capsys.readouterr().out
    assert "rises from 0.1 to 0.25" in out
    assert ["epochs", "50", "80"] in [line.split() for line in out.splitlines()]
    assert "optimiser" not in out


def test_files_may_be_records_or_evidence_and_the_tolerances_count(tmp_path, capsys):
    (tmp_path / "old.json").write_text(OLD.to_json())
    (tmp_path / "new.json").write_text(replace(NEW, prices={**NEW.prices, "wrong": 20.0}).to_json())
    assert main([str(tmp_path / "old.json"), str(tmp_path / "new.json"), "--policy", "utility"]) == 0
    assert ["prices", "wrong", f"{OLD.prices['wrong']:g}", "20"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]
    (tmp_path / "record.json").write_text(OLD.recommendations["raw"].to_json())
    assert main([str(tmp_path / "record.json"), str(tmp_path / "record.json")]) == 0


@pytest.mark.parametrize(
    "content", [None, "", "[]", "3", "{}", '{"recommendations": {}}', '{"task": "digits/mlp"}', "\udcff"]
)
def test_a_file_without_a_recommendation_is_told(tmp_path, content, capsys):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    assert main([str(path), str(path)]) == 2
    assert "holds no recommendation" in capsys.readouterr().err


def test_what_is_asked_wrongly_is_told(uri, capsys):
    for arguments in (["digits/mlp"], ["digits/mlp", "one", "2"], ["a", "b", "c", "d"]):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, "--tracking-uri", uri])
    assert main(["digits/mlp", "1", "2", "--tracking-uri", uri]) == 2
    assert "nothing is published" in capsys.readouterr().err


def test_an_unknown_policy_of_a_file_is_told(tmp_path, capsys):
    (tmp_path / "x.json").write_text(evidence(pictures=False).to_json())
    assert main([str(tmp_path / "x.json"), str(tmp_path / "x.json"), "--policy", "nope"]) == 2
    assert "there are: safe" in capsys.readouterr().err
