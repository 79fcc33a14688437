"""Records of a sweep in MLflow: runs, notes, tables, the model; also after a crash between two steps."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from decimal import Decimal

import made
import mlflow
import numpy as np
import pytest
import torch
from entries import FACTS, FOUND, UNPLACED, about
from mlflow.entities import LoggedModelStatus
from PIL import Image
from torch import nn

from lscal import Temperature
from sweeps.data.load import load
from sweeps.recording.plots import pictures_of
from sweeps.recording.requests import CatchUp, OpenSweep
from sweeps.recording.uploader import Uploader
from sweeps.training import export
from tracking.mlflow import registry, versions
from tracking.mlflow.note import numbers
from tracking.mlflow.runs import SweepRuns, metric, metrics_of, trial_name
from tracking.outbox.outbox import Record
from tracking.records.evidence import Evidence
from tracking.report import summary

ABOUT = about("sqlite:///mlflow.db")
NAME = versions.model_of(FOUND.task)


DIVIDED = Temperature(torch.tensor(0.6, dtype=torch.float64), torch.tensor(True))


def begun(client, found=FOUND):
    """A sweep in MLflow, and the evidence with its run."""
    sweep = SweepRuns(client, replace(ABOUT, task=found.task, study=found.study))
    named = {key: replace(one, run_id=sweep.parent) for key, one in found.recommendations.items()}
    return sweep, replace(found, run_id=sweep.parent, recommendations=named)


def tables(found):
    return [
        summary.screening(found.outcomes),
        summary.differences(found.outcomes, found.outcomes[0]),
        summary.confirmation(found.comparisons),
    ]


def artifact(client, run_id, path):
    with open(client.download_artifacts(run_id, path), "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def network():
    """A network for digits, its exported model, and inputs."""
    dataset = load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model = export.Calibrated(layers, torch.tensor(4.9), torch.tensor(6.1), DIVIDED)
    notes = {"task": "digits/mlp", "epsilon": "0.1", "temperature": "0.6", "seed": "5000"}
    return model, export.exported(model, dataset, notes), dataset


def test_each_run_has_a_name_a_role_a_status_and_a_note(client, uri):
    sweep, found = begun(client)
    tested = found.comparisons[1].outcome
    pilot = replace(found.outcomes[2], stage="pilot", uid="pilot", seeds=(4000, 4001))
    parts = [replace(tested, uid=f"part{one}", seeds=(one, one + 1)) for one in (5000, 5002)]
    for outcome in (found.outcomes[0], found.outcomes[3], found.dropped[0], pilot, *parts):
        sweep.trial(outcome, {}, {})
    runs = {run.info.run_name: run for run in client.search_runs([sweep.experiment])}
    assert {name: (run.data.tags["role"], run.info.status) for name, run in runs.items()} == {
        "sweep 1a2b3c4d": ("sweep", "RUNNING"),
        "ε = 0 · control": ("trial", "FINISHED"),
        "ε = 0.15 · 8 seeds": ("trial", "FINISHED"),
        "ε = 0.35 · dropped": ("trial", "KILLED"),
        "pilot ε = 0.1 · 2 seeds": ("trial", "FINISHED"),
        "ε = 0.1 · test, seeds 5000–5001": ("trial", "FINISHED"),
        "ε = 0.1 · test, seeds 5002–5003": ("trial", "FINISHED"),
    }
    note = runs["ε = 0.35 · dropped"].data.tags["mlflow.note.content"]
    assert note.splitlines()[-1] == f"Dropped: {found.dropped[0].dropped}"
    last = runs["ε = 0.1 · test, seeds 5002–5003"].data
    assert last.params["seeds"] == "2: 5002–5003"
    assert "scored on *test*" in last.tags["mlflow.note.content"]


def test_numbers_are_short():
    assert numbers((5000, 5001, 5002)) == "5000–5002"
    assert numbers((4,)) == "4"
    assert numbers((4, 6)) == "4, 6"
    tuned = replace(FOUND.outcomes[3], point={"epsilon": 0.15, "weight_decay": 0.012345})
    assert trial_name(tuned) == "ε = 0.15 wd 0.0123 · 8 seeds"


def test_metrics_have_five_digits():
    values = {point.key: point.value for point in metrics_of(FOUND.outcomes[3]) if point.step == 0}
    assert values["select/accuracy"] == pytest.approx(FOUND.outcomes[3].mean("select/accuracy"), rel=5e-5)
    assert max(len(Decimal(repr(value)).normalize().as_tuple().digits) for value in values.values()) == 5
    assert metric("aurc", 0.00123456789, 0).value == 0.0012346
    assert str(metric("confidence_gap", -1e-13, 0).value) == "0.0"


def test_each_split_is_a_data_set_of_its_own(client, uri):
    sweep, found = begun(client)
    for outcome in (found.outcomes[1], found.comparisons[1].outcome):
        sweep.trial(outcome, {}, {})
    runs = {run.data.tags.get("stage", "sweep"): run for run in client.search_runs([sweep.experiment])}
    contexts = {
        stage: {
            entry.dataset.name: {tag.key: tag.value for tag in entry.tags}["mlflow.data.context"]
            for entry in run.inputs.dataset_inputs
        }
        for stage, run in runs.items()
    }
    held = {"digits train": "training", "digits select": "validation", "digits calibrate": "calibration"}
    assert contexts == {
        "screen": held,
        "confirm": {**held, "digits test": "test"},
        "sweep": {**held, "digits test": "test"},
    }
    for dataset in (entry.dataset for entry in runs["confirm"].inputs.dataset_inputs):
        profile = json.loads(dataset.profile)
        assert profile["features_shape"] == [FOUND.examples[dataset.name.split()[1]], 1, 8, 8]
        assert profile["classes"] == list(FOUND.classes)
        assert dataset.digest == FACTS.digest
        assert mlflow.data.get_source(dataset).to_dict() == {"uri": FACTS.where}
        features = json.loads(json.loads(dataset.schema)["mlflow_tensorspec"]["features"])
        assert mlflow.types.Schema.from_json(json.dumps(features)).inputs[0].shape == (-1, 1, 8, 8)


def send_all(uploader):
    """Until nothing is left to be sent."""
    while uploader.progress(ABOUT.study).left:
        uploader.step()
        assert not uploader.follower.away


def test_publishing_leaves_metrics_pages_pictures_a_version_and_a_note(client, uri, network):
    uploader, sweep = Uploader(uri, "outbox"), about(uri)
    opened = uploader.answer(OpenSweep(sweep))
    for _ in range(2):
        uploader.answer(CatchUp(sweep, [FOUND.comparisons[0].outcome]))
        send_all(uploader)
    files = {**pictures_of(UNPLACED), "model.pt2": network[1].program}
    record = Record.of_findings(sweep, UNPLACED, tables(UNPLACED), network[1])
    uploader.follower.outbox.put(record, files, print)
    send_all(uploader)
    _, found = begun(client)
    assert found.run_id == opened.id
    parent = client.get_run(found.run_id)
    assert parent.info.run_name == "ε = 0.1 adopted · sweep 1a2b3c4d"
    assert parent.info.status == "FINISHED"
    metrics, adopted = parent.data.metrics, found.comparisons[1]
    assert metrics["recommended_epsilon"] == 0.1
    assert metrics["test/accuracy"] == pytest.approx(adopted.estimates["accuracy"].value, rel=5e-5)
    assert metrics["test/accuracy_delta"] == pytest.approx(adopted.differences["accuracy"].value, rel=5e-5)
    assert Evidence.from_json(artifact(client, found.run_id, "evidence.json").decode()) == found
    assert artifact(client, found.run_id, "page.html").lower().startswith(b"<!doctype html>")
    assert artifact(client, found.run_id, "plan.yaml").decode() == found.plan
    (child,) = client.search_runs([parent.info.experiment_id], "tags.role = 'trial'")
    after = (child, "reliability/test_after_temperature.png")
    for run, name in ((parent, "overview.png"), (parent, "reliability.png"), after):
        assert artifact(client, run.info.run_id, name).startswith(b"\x89PNG")
    version = versions.version(uri, found.task)
    assert (version.number, version.run_id, version.recommendation().epsilon) == (1, found.run_id, 0.1)

    note = parent.data.tags["mlflow.note.content"]
    experiment = client.get_experiment_by_name(found.task)
    assert experiment.tags["mlflow.note.content"] == note
    assert artifact(client, found.run_id, "summary.md").decode() == note
    assert note.startswith("**Train with label_smoothing=0.1 and divide logits by T = ")
    for place in (
        opened.link,
        f"#/experiments/{experiment.experiment_id}/runs/{found.run_id}/artifacts/page.html",
        f"#/models/{NAME}/versions/1",
        f"get-artifact?path=overview.png&run_uuid={found.run_id}",
        "On select, accuracy on select and calibrate: mean ± standard deviation over 8 seeds",
    ):
        assert place in note
    assert not any(key.startswith("lscal.") for key in experiment.tags)


def test_publishing_again_changes_nothing(client, uri, network):
    sweep, found = begun(client)
    sweep.trial(found.outcomes[0], {}, {})
    first = sweep.publish(found, tables(found), network[1], {})
    before = client.get_run(found.run_id)
    again, same = begun(client)
    assert same.run_id == found.run_id
    assert client.get_run(found.run_id).info.status == "FINISHED"
    assert again.logged() == {found.outcomes[0].uid}
    assert again.publish(found, tables(found), network[1], {}) == first
    after = client.get_run(found.run_id)
    assert (after.info.status, after.info.run_name) == ("FINISHED", before.info.run_name)
    assert after.data.to_dictionary() == before.data.to_dictionary()
    assert len(client.search_runs([sweep.experiment])) == 2
    assert len(client.search_logged_models([sweep.experiment])) == 1
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1


@dataclass(frozen=True)
class Torn(export.ExportedModel):
    """A model whose writing is cut short."""

    def write(self, folder, model_id):
        super().write(folder, model_id)
        raise OSError("No space left on device")


@pytest.mark.parametrize("step", ["model", "registry", "note"])
def test_a_crash_between_two_steps_is_repaired_by_the_same_call(client, uri, network, step, monkeypatch):
    sweep, found = begun(client)
    torn = Torn(**vars(network[1]))
    with monkeypatch.context() as patch:
        if step != "model":
            place = {"registry": (registry, "publish"), "note": (client, "set_experiment_tag")}[step]
            patch.setattr(*place, lambda *_: (_ for _ in ()).throw(OSError("cut")))
        with pytest.raises(OSError):
            sweep.publish(found, tables(found), torn if step == "model" else network[1], {})
    sweep.stop("FAILED")
    assert "mlflow.note.content" not in client.get_experiment_by_name(found.task).tags
    assert len(client.search_model_versions(f"name = '{NAME}'")) == (step == "note")
    again, _ = begun(client)
    assert again.publish(found, tables(found), network[1], {}) == 1
    (model,) = client.search_logged_models([sweep.experiment])
    assert model.status == LoggedModelStatus.READY
    assert client.get_run(found.run_id).info.status == "FINISHED"
    note = client.get_experiment_by_name(found.task).tags["mlflow.note.content"]
    assert note.startswith("**Train with label_smoothing=0.1 ")


def test_a_sweep_without_a_model_that_adopts_nothing_is_published(client, uri):
    sweep, found = begun(client, made.evidence(adopted=False, optional=False, instances=False))
    sweep.publish(found, tables(found), None, {})
    parent = client.get_run(found.run_id)
    assert parent.info.run_name == "ε = 0 kept · sweep 1a2b3c4d"
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**Train without label smoothing (0) and divide logits by T = ")
    assert "load_model" not in note
    assert "pp\n" not in note.partition("\n")[0]


def test_a_note_is_never_cut_by_mlflow(client, uri):
    sweep, found = begun(client, made.evidence(seed=2))
    loud = {name: replace(one, reason="why " * 900) for name, one in found.recommendations.items()}
    sweep.publish(replace(found, recommendations=loud), tables(found), None, {})
    note = client.get_experiment_by_name(found.task).tags["mlflow.note.content"]
    assert len(note) <= 8000
    assert note.startswith("**Train with label_smoothing=0.1 ")


def test_the_instances_are_a_table_with_pictures(client, uri):
    sweep, found = begun(client)
    sweep.publish(found, tables(found), None, {})
    table = json.loads(artifact(client, found.run_id, "instances.json"))
    logged = json.loads(client.get_run(found.run_id).data.tags["mlflow.loggedArtifacts"])
    assert logged == [{"path": "instances.json", "type": "table"}]
    assert not any("." in column for column in table["columns"])  # the UI would show an empty cell
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    drops = [row["drop at ε = 0․1"] for row in rows]
    assert drops == sorted(drops, reverse=True)
    by_index = {one.index: one for one in found.instances}
    assert len(rows) == len(by_index)
    for row in rows:
        one = by_index[row["index"]]
        assert row["class"] == found.classes[one.label]
        left = row["confidence at ε = 0"] - row["drop at ε = 0․1"]
        assert left == pytest.approx(one.confidence[1], abs=1.1e-3)
        assert row["predicted at ε = 0․25"] == found.classes[one.predicted[2]]
        path = client.download_artifacts(found.run_id, row["picture"]["filepath"])
        with Image.open(path) as picture:
            assert min(picture.size) >= 100


LOADING = """
import mlflow, numpy, torch
inputs = numpy.load("inputs.npy")
model = mlflow.pytorch.load_model("models:/digits--mlp@recommended")
served = mlflow.pyfunc.load_model("models:/digits--mlp@recommended")
numpy.save("found.npy", numpy.stack([model(torch.from_numpy(inputs)).numpy(), served.predict(inputs)]))
"""


def test_the_registered_model_loads_without_pickle_in_another_process(client, uri, network, tmp_path):
    sweep, found = begun(client)
    sweep.publish(found, tables(found), network[1], {})
    inputs = network[2].splits["test"].inputs[:5].numpy()
    np.save(tmp_path / "inputs.npy", inputs)
    settings = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    around = {"env": settings, "cwd": tmp_path, "text": True, "check": False}
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, **around)
    assert done.returncode == 0, done.stderr
    expected = network[0](torch.from_numpy(inputs)).numpy()
    for execution in np.load(tmp_path / "found.npy"):
        np.testing.assert_allclose(execution, expected, atol=1e-6)


CONNECTING = """
import sys
from tracking.mlflow.runs import connect
print("ready", flush=True)
sys.stdin.readline()
connect(sys.argv[1])
print("done")
"""


def test_processes_that_create_the_tables_at_the_same_moment_all_get_them(tmp_path):
    """Without a lock one of them fails, or leaves tables that no later one can use."""
    start = [sys.executable, "-c", CONNECTING, f"sqlite:///{tmp_path}/mlflow.db"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(start, text=True, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]
    assert [out for out, _ in outputs] == ["done\n"] * 3, outputs
