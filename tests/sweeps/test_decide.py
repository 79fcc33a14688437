"""Decisions on predictions of networks that were trained elsewhere."""

import csv
import json

import numpy as np
import pytest

from sweeps.cli.decide import main
from sweeps.cli.train import main as train

SIZES = {"validation": 400, "test": 900}
CLASSES = 4
LEADS = {0.0: 1.9, 0.1: 2.4, 0.2: 2.5}


def member(epsilon, seed, split, lead, labels):
    """Logits: how hard an example is for everybody, and what the seed makes of it."""
    hard = np.random.default_rng(len(labels)).normal(size=(len(labels), CLASSES))
    own = np.random.default_rng([seed, round(100 * epsilon), len(split)]).normal(size=hard.shape)
    logits = hard + 0.5 * own
    logits[np.arange(len(labels)), labels] += lead
    return (1.3 * logits).astype(np.float32)


def labels_of(split):
    return np.random.default_rng(SIZES[split]).integers(0, CLASSES, SIZES[split])


def saved(folder, seeds=4, splits=("validation", "test"), leads=LEADS, name="eps{}_seed{}/{}.npz"):
    """Files of all members."""
    for epsilon, lead in leads.items():
        for seed in range(seeds):
            for split in splits:
                path = folder / name.format(epsilon, seed, split)
                path.parent.mkdir(parents=True, exist_ok=True)
                labels = labels_of(split)
                np.savez(path, logits=member(epsilon, seed, split, lead, labels), labels=labels)
    return folder


def decided(capsys, *words):
    """The record that the command prints."""
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    assert main(list(map(str, words))) == 2
    return capsys.readouterr().err


def right(epsilon, seed):
    labels = labels_of("test")
    return (member(epsilon, seed, "test", LEADS[epsilon], labels).argmax(1) == labels).mean()


def test_a_folder_of_predictions_comes_to_a_recommendation(tmp_path, capsys):
    place = saved(tmp_path / "runs")
    record = decided(capsys, "--from", place, "--name", "flowers/ours")
    assert record["epsilon"] in (0.1, 0.2)
    expected = np.mean([right(record["epsilon"], seed) - right(0.0, seed) for seed in range(4)])
    assert record["delta_accuracy"]["value"] == pytest.approx(expected, abs=1e-8)
    assert (record["task"], record["seeds"], record["examples"]) == ("flowers/ours", 4, 900)
    assert set(record["policies"]) == {"raw", "accuracy", "calibrated", "honest", "utility"}


def test_with_eight_seeds_one_half_chooses_and_the_other_judges(tmp_path, capsys):
    place = saved(tmp_path, seeds=8)
    record = decided(capsys, "--from", place)
    expected = np.mean([right(record["epsilon"], seed) - right(0.0, seed) for seed in range(4, 8)])
    assert record["delta_accuracy"]["value"] == pytest.approx(expected, abs=1e-8)
    page = tmp_path / "page.html"
    assert main(["--from", str(place), "--page", str(page)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "same" not in printed.partition("Recommended")[0]
    assert "validation is halved by a fixed rule: 200 examples choose ε" in printed
    assert "fresh seeds and judged" not in page.read_text()
    assert "validation is halved by a fixed rule" in page.read_text()


def test_other_names_a_manifest_and_select_and_calibrate_give_the_same(tmp_path, capsys):
    first = decided(capsys, "--from", saved(tmp_path / "a"))
    other = saved(tmp_path / "b", name="epsilon={}/seed-{}-{}.npz")
    second = decided(capsys, "--from", other)
    with open(tmp_path / "list.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, ["epsilon", "seed", "validation", "test"])
        table.writeheader()
        for epsilon in LEADS:
            for seed in range(4):
                files = {part: f"a/eps{epsilon}_seed{seed}/{part}.npz" for part in SIZES}
                table.writerow({"epsilon": epsilon, "seed": seed, **files})
    third = decided(capsys, "--from", tmp_path / "list.csv")
    for record in (first, second, third):
        record.pop("created")
    assert first == second == third


def test_without_validation_test_is_divided_and_that_is_said(tmp_path, capsys):
    place = saved(tmp_path, splits=("test",))
    assert main(["--from", str(place)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "There is no validation, so test is divided by a fixed rule: 225 examples choose ε" in printed
    assert decided(capsys, "--from", place)["examples"] == 450


def test_a_dropped_epsilon_is_read_from_the_name(tmp_path, capsys):
    saved(tmp_path)
    saved(tmp_path, leads={0.3: 2.6}, name="eps{}_drop0.4_seed{}/{}.npz")
    record = decided(capsys, "--from", tmp_path)
    assert record["dropped"]["point"] == {"epsilon": 0.3, "drop": 0.4}
    assert record["preferred"] == "dropped"
    assert record["point"]["drop"] == 1.0


def test_members_that_are_missing_are_named(tmp_path, capsys):
    place = saved(tmp_path)
    (place / "eps0.1_seed2" / "test.npz").unlink()
    assert "wanted the same splits in all" in refused(capsys, "--from", place)
    (place / "eps0.1_seed2" / "validation.npz").unlink()
    assert main(["--from", str(place)]) == 0
    assert "Train: ε = 0.1, seed 2." in " ".join(capsys.readouterr().out.split())


def test_few_common_seeds_are_refused_with_what_to_train(tmp_path, capsys):
    saved(tmp_path, seeds=1)
    error = refused(capsys, "--from", tmp_path)
    assert "1 seeds are common to all ε; wanted at least 2" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, logits: (np.roll(labels, 1), logits), "row 1: the label is"),
        (lambda labels, logits: (labels[:-1], logits[:-1]), "has 899 examples, and ε = 0, seed 0 has 900"),
        (lambda labels, logits: (labels, np.where(logits > 3, np.nan, logits)), "nan"),
        (lambda labels, logits: (labels, np.pad(logits, ((0, 0), (0, 1)))), "has 5 classes, and"),
    ],
)
def test_a_member_unlike_the_others_is_refused_by_name(tmp_path, capsys, change, message):
    place = saved(tmp_path)
    path = place / "eps0.2_seed1" / "test.npz"
    labels = labels_of("test")
    labels, logits = change(labels, member(0.2, 1, "test", 2.5, labels))
    np.savez(path, logits=logits, labels=labels)
    error = refused(capsys, "--from", place)
    assert "eps0.2_seed1/test.npz" in error
    assert message in error.lower()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seed1/test.npz", "does not name ε"),
        ("eps0.1/test.npz", "does not name a seed"),
        ("eps0.1_seed1/logits.npz", "does not name a split"),
        ("eps1.5_seed1/test.npz", "allowed are 0 <= ε < 1"),
    ],
)
def test_a_file_that_does_not_name_its_member_is_refused(tmp_path, capsys, name, message):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, logits=np.zeros((3, 2)), labels=np.zeros(3, int))
    assert message in refused(capsys, "--from", tmp_path)


def test_wrong_flags_are_refused(tmp_path, capsys):
    assert "neither a folder nor a file" in refused(capsys, "--from", tmp_path / "none")
    assert "holds no file of predictions" in refused(capsys, "--from", tmp_path)
    saved(tmp_path / "runs")
    for words, message in (
        (("--policy", "best"), "--policy is 'best'; allowed are accuracy"),
        (("--effect", "0"), "--effect is 0; allowed"),
        (("--name", "../x"), "--name:"),
    ):
        assert message in refused(capsys, "--from", tmp_path / "runs", *words)
    no_control = saved(tmp_path / "other", leads={0.1: 2.0, 0.2: 2.1})
    assert "wanted ε = 0 and at least one other" in refused(capsys, "--from", no_control)


def test_members_of_our_own_engine_are_decided_as_a_sweep_decides_them(tmp_path, monkeypatch, capsys):
    """sweeps.train writes what sweeps.decide reads; the numbers are those that the training printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSCAL_DATA", raising=False)
    words = "digits/mlp --epochs 3 --seeds 2 --seed 5 --execution looped:1 --out runs".split()
    assert train([*words, "--epsilon", "0"]) == 0
    printed = capsys.readouterr().out
    assert train([*words, "--epsilon", "0.2"]) == 0
    assert train([*words, "--epsilon", "0.2", "--smoothing", "uniform@drop:0.5"]) == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"eps{point}_seed{seed}" for point in ("0", "0.2", "0.2_drop0.5") for seed in (5, 6)
    }
    capsys.readouterr()
    record = decided(capsys, "--from", "runs", "--name", "digits/mlp")
    accuracy = 100 * record["control"]["accuracy"]["value"]
    assert f"test   accuracy {accuracy:.2f} %" in printed
    assert record["dropped"] is not None
    assert train([*words, "--epsilon", "0.2", "--smoothing", "uniform@drop"]) == 2
    assert "wanted one share, such as uniform@drop:0.3" in " ".join(capsys.readouterr().err.split())
