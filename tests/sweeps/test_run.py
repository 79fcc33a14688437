"""The command line as a person uses it: real processes, real databases, in an empty directory."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import oracles
import pytest
from mlflow import MlflowClient
from published import made, publish
from sklearn.metrics import accuracy_score, log_loss

from sweeps.cli.run import main
from sweeps.data.load import load
from sweeps.protocol.shortlist import published_before
from sweeps.settings import resolve
from sweeps.site import Site
from tracking.records.outcome import Outcome

ROOT = Path(__file__).parents[2]
SMALL = ("--trials", "3", "--seeds", "2", "--epochs", "4")


def run(folder, *arguments, timeout=240):
    """A finished process of `python -m sweeps.run`."""
    return subprocess.run(
        [sys.executable, "-m", "sweeps.run", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def environment():
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "LSCAL_DATA")
    }
    return {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "90"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A directory in which a small sweep has been run, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    done = run(folder, *SMALL, "--json", "--tables")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def runs(swept):
    folder, _ = swept
    with contextlib.chdir(folder):
        client = MlflowClient("sqlite:///mlflow.db")
        experiment = client.get_experiment_by_name("digits/mlp")
        found = client.search_runs([experiment.experiment_id])
    return client, experiment, found


def artifact(folder, client, run_id, path):
    with contextlib.chdir(folder):
        return Path(client.download_artifacts(run_id, path)).read_bytes()


def test_json_is_the_only_line_on_stdout(swept):
    _, done = swept
    (line,) = done.stdout.splitlines()
    (record,) = json.loads(line)
    assert record["task"] == "digits/mlp"
    assert record["epsilon_wrong_classes"] == pytest.approx(0.9 * record["epsilon"])
    for name in ("accuracy", "ece", "ece_calibrated", "aurc", "delta_accuracy"):
        assert record[name]["low"] <= record[name]["value"] <= record[name]["high"]
    for name in ("policy", "reason", "study", "run_id", "created"):
        assert record[name]


def test_the_terminal_shows_tables_the_answer_and_the_next_commands(swept):
    folder, done = swept
    for words in (
        "mean ± standard deviation over 2 seeds",
        "Difference to ε = 0, same seeds",
        "This sweep finds a gain in accuracy of",
        "Confirmed on test: value [95 % interval]",
        "Recommended ε for digits/mlp:",
        "mlflow server",
        "python -m tracking.recommend digits/mlp",
    ):
        assert words in done.stderr
    page = folder / "lscal-state" / "pages" / "digits--mlp.html"
    assert page.as_uri() in done.stderr.splitlines()[1]
    assert page.read_text().startswith("<!doctype html>")
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_mlflow_has_a_parent_and_a_child_per_trial(runs):
    _, experiment, found = runs
    roles = [one.data.tags["role"] for one in found]
    assert roles.count("sweep") == 1
    (parent,) = (one for one in found if one.data.tags["role"] == "sweep")
    children = [one for one in found if one.data.tags["role"] == "trial"]
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}
    stages = [one.data.tags["stage"] for one in children]
    assert (stages.count("pilot"), stages.count("screen")) == (2, 3)
    screened = [one for one in children if one.data.tags["stage"] == "screen"]
    tried = sorted((float(one.data.params["epsilon"]), float(one.data.params["drop"])) for one in screened)
    assert tried == [(0, 1), (0.2, 0.35), (0.2, 1)]
    assert not any(name.startswith("test/") for one in screened for name in one.data.metrics)
    assert all(one.info.status == "FINISHED" for one in found)
    smoothing, epsilon = parent.data.tags["recommended_smoothing"], parent.data.tags["recommended_epsilon"]
    told = "**Train without label smoothing (0)"
    if "@drop" in smoothing or epsilon != "0":
        told = "**Train with label_smoothing="
    for note in (experiment.tags["mlflow.note.content"], parent.data.tags["mlflow.note.content"]):
        assert note.startswith(told)
    assert {one.dataset.name for one in parent.inputs.dataset_inputs} == {
        f"digits {split}" for split in ("train", "select", "calibrate", "test")
    }
    assert not any(one.dataset.name == "digits test" for run in screened for one in run.inputs.dataset_inputs)
    assert parent.data.tags["version.torch"]


def test_the_logged_logits_give_the_logged_metrics(swept, runs):
    folder, _ = swept
    client, _, found = runs
    checked = 0
    for one in found:
        if one.data.tags["role"] != "trial":
            continue
        splits = ("select", "test") if one.data.tags["stage"] == "confirm" else ("select",)
        for split in splits:
            file = np.load(
                io.BytesIO(artifact(folder, client, one.info.run_id, f"logits/{split}.npz")),
                allow_pickle=False,
            )
            labels = file["labels"]
            assert float(file["epsilon"]) == pytest.approx(float(one.data.params["epsilon"]))
            per_seed = []
            for logits in file["logits"].astype(np.float64):
                p = oracles.softmax(logits)
                wrong = (p.argmax(1) != labels)[np.argsort(-p.max(1), kind="stable")]
                aurc = np.mean(np.cumsum(wrong) / np.arange(1, len(labels) + 1))
                per_seed.append(
                    (
                        accuracy_score(labels, p.argmax(1)),
                        log_loss(labels, p, labels=range(10)),
                        oracles.ece(p.max(1), p.argmax(1) == labels),
                        aurc,
                    )
                )
            for name, value in zip(
                ("accuracy", "nll", "ece", "aurc"), np.mean(per_seed, axis=0), strict=True
            ):
                # metrics are logged to five digits; confidences equal to float32 are ties to us alone
                near = 3e-5 if name == "aurc" else 1e-5
                assert one.data.metrics[f"{split}/{name}"] == pytest.approx(value, abs=near), (split, name)
                checked += 1
        held_out = [
            np.load(
                io.BytesIO(artifact(folder, client, one.info.run_id, f"logits/{split}.npz")),
                allow_pickle=False,
            )
            for split in ("calibrate", "select")
        ]
        right = np.concatenate([file["logits"].argmax(-1) == file["labels"] for file in held_out], 1)
        chosen_by = one.data.metrics.get("held_out/accuracy")
        assert chosen_by == (None if splits[-1] == "test" else pytest.approx(right.mean(), abs=1e-5))
        picture = artifact(folder, client, one.info.run_id, f"reliability/{splits[-1]}.png")
        assert picture.startswith(b"\x89PNG")
    assert checked >= 16


def test_a_pilot_alone_reports_the_detectable_gain_and_trains_nothing_else(tmp_path):
    done = run(tmp_path, *SMALL, "--pilot-only", "--price-per-hour", "3600", "--effect", "1")
    assert done.returncode == 0, done.stderr
    assert "This sweep finds a gain in accuracy of" in done.stdout
    assert "at a price of" in done.stdout
    assert study_in(tmp_path).trials == []
    as_json = run(tmp_path, *SMALL, "--pilot-only", "--json")
    (pilot,) = json.loads(as_json.stdout)
    assert pilot["effect"] == 0.003
    assert "member-epochs" not in as_json.stderr  # the four members were trained already


def test_what_is_published_for_the_same_training_is_confirmed_again(tmp_path):
    """Given a published ε of the same data and recipe, when the task is swept, then it is a finalist; not
    with another recipe, nor with --fresh.
    """
    plan = resolve({"epochs": 4})
    found = made(epsilon=0.23)
    training = plan.training(plan.tasks[0], load("digits").digest)
    record = replace(found.recommendations["safe"], point={"epsilon": 0.23}, training=training)
    publish(
        MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"),
        replace(found, recommendations={**found.recommendations, "safe": record}),
    )
    said = "ε = 0.23, which is published for this task, is confirmed beside the candidates"
    tried = run(tmp_path, *SMALL)
    assert tried.returncode == 0, tried.stderr
    assert said in tried.stdout
    assert {"epsilon": 0.23, "drop": 1.0} in study_in(tmp_path).user_attrs["openings"][0]["points"]
    fresh = run(tmp_path, *SMALL, "--fresh", "--seeds", "3")
    assert fresh.returncode == 0, fresh.stderr
    assert said not in fresh.stdout
    uri = f"sqlite:///{tmp_path}/kept.db"
    publish(MlflowClient(uri), replace(found, recommendations={**found.recommendations, "safe": record}))
    here = Site(tracking_uri=uri)
    assert published_before("safe", here, "digits/mlp", training) == [{"epsilon": 0.23}]
    assert published_before("safe", here, "digits/mlp", "0" * 8) == []
    assert published_before("safe", here, "digits/cnn", training) == []


def test_a_study_store_that_stays_away_is_waited_for_and_is_not_wrong_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.studies.retrying_storage.OPEN_SECONDS", 0.0)
    assert main([*SMALL, "--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x"]) == 1
    error = capsys.readouterr().err
    assert "error: cannot open the study store postgresql+psycopg://127.0.0.1:1/x" in error
    assert "All that was measured is kept; go on with: python -m sweeps.run" in error
    assert "secret" not in error


@pytest.mark.slow
def test_the_test_split_is_not_opened_twice_for_other_finalists(swept, tmp_path):
    folder, first = swept
    shutil.copytree(folder, tmp_path / "copy")
    refused = run(tmp_path / "copy", *SMALL, "--confirm-seeds", "6")
    assert refused.returncode == 2
    before = json.loads(first.stdout)[0]
    for words in ("was opened on", before["run_id"], "--reopen-test"):
        assert words in refused.stderr
    more = run(tmp_path / "copy", "--trials", "4", "--seeds", "2", "--epochs", "4")
    assert more.returncode == 2
    assert "1 more trials could change the finalists" in more.stderr
    assert "member-epochs" not in more.stderr
    opened = run(tmp_path / "copy", *SMALL, "--confirm-seeds", "6", "--reopen-test", "--json")
    assert opened.returncode == 0, opened.stderr
    record = json.loads(opened.stdout)[0]
    assert record["openings"] == 2
    assert "opened 2 times" in record["reason"]


def test_curves_are_logged_epoch_by_epoch(swept, runs):
    folder, _ = swept
    client, _, found = runs
    child = next(one for one in found if one.data.tags["role"] == "trial")
    with contextlib.chdir(folder):
        history = client.get_metric_history(child.info.run_id, "curves/select_accuracy")
    assert [point.step for point in history] == [1, 2, 3, 4]
    assert history[-1].value == pytest.approx(child.data.metrics["select/accuracy"], abs=1e-5)


def test_the_same_command_trains_nothing_again_and_more_trials_add_the_rest(swept, tmp_path):
    folder, first = swept
    database = (folder / "optuna.db").read_bytes()
    again = run(folder, *SMALL, "--json")
    assert "digits/mlp: nothing to do; version 1 stands." in again.stderr
    assert "member-epochs" not in again.stderr
    same, before = json.loads(again.stdout)[0], json.loads(first.stdout)[0]
    assert same == before
    assert (folder / "optuna.db").read_bytes() == database
    train = next(line for line in first.stderr.splitlines() if line.startswith("Train with"))
    assert train in again.stderr
    more = run(folder, "--trials", "4", "--seeds", "2", "--epochs", "4", "--reopen-test")
    assert "3 trials are finished, 1 are to do" in more.stderr + more.stdout
    assert "screening digits/mlp: 8 of 8 member-epochs" in more.stderr
    studies = [
        name
        for name in optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db")
        if "/" not in name.partition("@")[2]
    ]
    assert len(studies) == 1


def test_ctrl_c_keeps_what_is_finished_and_the_command_goes_on(tmp_path):
    arguments = ["--trials", "8", "--seeds", "8", "--epochs", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.run", *arguments],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 150
    while finished(tmp_path) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: python -m sweeps.run --trials 8 --seeds 8 --epochs 60" in errors
    assert errors.count("Stopping: what is finished is kept.") == 1
    assert "Traceback" not in errors
    states = [trial.state.name for trial in study_in(tmp_path).trials]
    assert states.count("COMPLETE") >= 4
    assert states.count("RUNNING") == 0
    assert states.count("COMPLETE") + states.count("WAITING") in (4, 8)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits/mlp").experiment_id])
    assert sum(one.data.tags.get("stage") == "screen" for one in found) == states.count("COMPLETE")
    assert [one.info.status for one in found if one.data.tags["role"] == "sweep"] == ["KILLED"]


def study_in(folder):
    (name,) = (
        name
        for name in optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db")
        if "/" not in name.partition("@")[2]
    )
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")


def finished(folder):
    with contextlib.suppress(Exception):
        return sum(trial.state.name == "COMPLETE" for trial in study_in(folder).trials)
    return 0


@pytest.mark.slow
def test_a_loss_that_becomes_nan_fails_its_trial_and_the_sweep_goes_on(tmp_path):
    done = run(tmp_path, *SMALL, "--tune", "learning_rate=1e25:1e30")
    assert done.returncode == 0, done.stderr
    assert "failed: the loss became NaN or infinite" in done.stdout
    states = [trial.state.name for trial in study_in(tmp_path).trials]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    assert "Recommended ε for digits/mlp: 0 " in done.stdout


def test_a_smoothing_and_a_weight_decay_are_chosen_beside_epsilon(tmp_path):
    small = "--trials 6 --seeds 2 --epochs 2 --confirm-seeds 2 --epsilon -0.1:0.3 --tune weight_decay"
    done = run(
        tmp_path,
        *small.split(),
        *["--smoothing", "online@decay,class_prior", "--policy", "accuracy", "--json"],
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert set(record["point"]) == {"epsilon", "weight_decay", "smoothing"}
    assert record["smoothing"] == record["point"]["smoothing"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits/mlp").experiment_id])
    screened = [one.data.params for one in found if one.data.tags.get("stage") == "screen"]
    assert len(screened) == 6
    assert (
        sorted(float(one["epsilon"]) for one in screened).count(0) == 2
    )  # the recipe's weight decay, and another one
    assert {one["smoothing"] for one in screened if float(one["epsilon"]) == 0} == {"online@decay"}
    assert all(0.0025 <= float(one["weight_decay"]) <= 0.04 for one in screened)
    assert float(next(one for one in screened if float(one["weight_decay"]) == 0.01)["epsilon"]) == 0
    (parent,) = (one for one in found if one.data.tags["role"] == "sweep")
    evidence = json.loads(artifact(tmp_path, client, parent.info.run_id, "evidence.json"))
    assert list(evidence["surfaces"]) == ["weight_decay"]
    assert b"weight decay in numbers" in artifact(tmp_path, client, parent.info.run_id, "page.html")


def test_a_control_that_diverges_fails_the_sweep(tmp_path):
    (tmp_path / "plan.yaml").write_text("learning_rate: 1.0e+30\ntrials: 2\nseeds: 1\nepochs: 2\n")
    done = run(tmp_path, "--config", "plan.yaml")
    assert done.returncode == 1
    assert "ε = 0 diverged" in done.stdout


def test_a_dry_run_prints_yaml_which_reproduces_it(tmp_path):
    first = run(tmp_path, *SMALL, "--epsilon", "0:0.3", "--dry-run")
    assert first.returncode == 0
    assert "4 members for the pilot, 6 in 3 trials" in first.stdout
    (tmp_path / "plan.yaml").write_text(first.stdout)
    second = run(tmp_path, "--config", "plan.yaml", "--dry-run")
    assert plan_lines(second.stdout) == plan_lines(first.stdout)
    assert not (tmp_path / "optuna.db").exists()


def plan_lines(text):
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digts/mlp"], "Did you mean 'digits'"),
        (["--epochz", "3"], "Did you mean --epochs"),
        (["--epsilon", "0:1"], "HIGH < 1"),
        (["--effect", "0"], "effect is 0.0; allowed"),
        (["--prices", "1:2:0"], "right <= review < wrong"),
        (["--prices", "1:0"], "WRONG:REVIEW:RIGHT"),
        (["--price-per-hour", "-1"], "at least 0"),
        (["fashion_mnist/mlp"], "--data-dir DIR"),
        (["--train-examples", "15"], "wanted at least 2 of each"),
        (["--storage", "sqlite:////nowhere/x.db"], "cannot open the study store"),
        (["--tracking-uri", "sqlite:////no/such/folder/mlflow.db"], "cannot be made"),
        (["--tracking-uri", "sqlite:////nowhere/x.db"], "'/nowhere' is no folder"),
        (["--tracking-uri", "sqlite:///garbage.db"], "not a database"),
        (["--config", "nowhere.yaml"], "No such file"),
    ],
)
def test_wrong_input_ends_with_2_and_a_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "90")
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "LSCAL_DATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "garbage.db").write_text("this is no database at all, nor will it be one")
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse's own
        code = ended.code
    out, errors = capsys.readouterr()
    assert code == 2
    assert message in errors
    *before, last = errors.splitlines()
    assert last.startswith("error: ")
    assert len(before) <= 4  # what was asked for, where it would appear, what is read
    assert out == ""


@pytest.mark.slow
def test_a_store_which_mlflow_lost_is_filled_again(swept, tmp_path):
    folder, _ = swept
    done = run(folder, *SMALL, "--tracking-uri", f"sqlite:///{tmp_path}/other.db")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/other.db")
    found = client.search_runs([client.get_experiment_by_name("digits/mlp").experiment_id])
    assert sum(one.data.tags["role"] == "trial" for one in found) >= 4
    assert "trained again" in done.stdout


def test_outcomes_are_in_the_study(swept):
    folder, _ = swept
    for trial in study_in(folder).trials:
        if trial.state.name == "COMPLETE":
            outcome = Outcome.from_json(trial.user_attrs["outcome"])
            assert trial.values == pytest.approx(
                [outcome.mean("select/accuracy"), outcome.mean("select/ece")]
            )
