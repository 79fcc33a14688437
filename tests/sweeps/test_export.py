"""The exported model against the engine that trained it."""

import io
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from lscal import CALIBRATORS, Temperature
from lscal.crossfit import METHODS
from sweeps.data.dataset import Dataset, Split
from sweeps.data.load import load
from sweeps.settings import resolve
from sweeps.training import export
from sweeps.training.autotune import choose
from sweeps.training.execution import Execution
from sweeps.training.member import Member

CPU = torch.device("cpu")
MEMBERS = [Member(epsilon, seed, 3e-3, 1e-2) for epsilon in (0.0, 0.2) for seed in (3, 5)]
TEMPERATURE = 0.63
DIVIDED = Temperature(torch.tensor(TEMPERATURE, dtype=torch.float64), torch.tensor(True))


def images(channels, side):
    """Random images of three classes, as a data set holds them."""
    generator = torch.Generator().manual_seed(channels)
    splits = {}
    for name, examples in (("train", 66), ("select", 9), ("calibrate", 9), ("test", 23)):
        stored = torch.randint(
            0, 256, (examples, channels, side, side), generator=generator, dtype=torch.uint8
        )
        splits[name] = Split(stored, torch.arange(examples) % 3)
    mean, deviation = ((71.0, 12.5, 90.0), (60.0, 41.0, 77.0)) if channels == 3 else ((71.0,), (60.0,))
    return Dataset("fashion_mnist", splits, ("shirt", "shoe", "bag"), mean, deviation, "digest", "nowhere")


@pytest.fixture(
    scope="module",
    params=[
        ("digits/mlp", None, "fused"),
        ("fashion_mnist/cnn", 1, "looped"),
        ("fashion_mnist/cnn", 3, "fused"),
    ],
    ids=lambda param: "-".join(str(part) for part in param),
)
def trained(request):
    """An engine, what it trained, and its logits of *test*."""
    task, channels, kind = request.param
    dataset = load("digits") if channels is None else images(channels, 28 if channels == 1 else 12)
    engine = choose(
        resolve({"tasks": [task], "epochs": 1, "batch_size": 33}).tasks[0],
        dataset,
        ("uniform",),
        CPU,
        2,
        "looped",
    )
    engine = replace(engine, execution=Execution(kind, "float32", 2, 4))
    found = engine.train(MEMBERS, lambda _: None)
    return engine, found, engine.logits(found, "test")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", METHODS)
def test_a_program_recalibrates_as_each_calibrator_does(trained, method):
    engine, found, logits = trained
    calibrator = CALIBRATORS[method].fit(logits[1], engine.dataset.splits["test"].labels)
    model = export.calibrated_model(engine.task, engine.dataset, export.weights_of(found, 1), calibrator)
    program = torch.export.load(io.BytesIO(export.exported(model, engine.dataset, {}).program)).module()
    stored = engine.dataset.splits["test"].inputs[:40]
    expected = oracles.softmax(calibrator(logits[1][:40].double()).numpy())
    np.testing.assert_allclose(program(stored).numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("row", [0, 3])
def test_the_model_gives_the_engines_logits_and_calibrated_probabilities(trained, row):
    engine, found, logits = trained
    model = export.calibrated_model(engine.task, engine.dataset, export.weights_of(found, row), DIVIDED)
    stored = engine.dataset.splits["test"].inputs
    torch.testing.assert_close(model.logits(stored), logits[row], rtol=1e-5, atol=1e-5)
    expected = oracles.softmax(logits[row].double().numpy() / TEMPERATURE)
    np.testing.assert_allclose(model(stored).numpy(), expected, rtol=0, atol=2e-6)


def test_weights_go_through_a_file(trained):
    _, found, _ = trained
    weights = export.weights_of(found, 1)
    again = export.unpack(export.pack(weights))
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    other = export.weights_of(found, 2)
    assert not all(torch.equal(other[name], value) for name, value in weights.items())


def test_a_program_takes_batches_of_any_size(trained):
    engine, found, _ = trained
    model = export.calibrated_model(engine.task, engine.dataset, export.weights_of(found, 2), DIVIDED)
    made = export.exported(model, engine.dataset, {"task": engine.task.name})
    program = torch.export.load(io.BytesIO(made.program)).module()
    stored = engine.dataset.splits["test"].inputs
    for examples in (1, 2, 23):
        torch.testing.assert_close(program(stored[:examples]), model(stored[:examples]), rtol=1e-5, atol=1e-6)
    assert (made.dtype, made.shape, made.classes) == ("uint8", engine.dataset.shape, engine.dataset.classes)
    assert made.digest == replace(made).digest
    assert (
        len(
            {
                made.digest,
                replace(made, about={"task": "another"}).digest,
                replace(made, program=b"another").digest,
            }
        )
        == 3
    )


def test_what_does_not_fit_is_said(trained):
    engine, found, _ = trained
    dropped = replace(found, shards=found.shards[:1])
    missing = next(row for row in range(4) if row not in dropped.shards[0].rows)
    with pytest.raises(ValueError, match=f"member {missing} was not trained to its end"):
        export.weights_of(dropped, missing)
    with pytest.raises(ValueError, match=r"do not fit (mlp|cnn), which has"):
        export.calibrated_model(engine.task, engine.dataset, {"0.weight": torch.ones(2, 2)}, DIVIDED)


class Undecided(nn.Module):
    """What it computes depends on its inputs' values."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :3] if inputs.sum() > 0 else inputs.flatten(1)[:, 3:6]


def test_a_network_which_cannot_be_exported_is_told_apart():
    model = export.Calibrated(Undecided(), torch.tensor(0.0), torch.tensor(1.0), DIVIDED)
    with pytest.raises(export.NotExportable, match="torch cannot export the network: "):
        export.exported(model, images(1, 12), {})
