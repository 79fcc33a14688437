import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sweeps.cli.check import main
from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import RawData
from sweeps.data.load import load
from sweeps.errors import WrongInput
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.registry import Architecture
from sweeps.preflight import network
from sweeps.preflight.data import findings
from sweeps.preflight.task import check
from sweeps.settings import resolve
from sweeps.site import Site
from sweeps.task import Recipe, Task
from sweeps.training.population import initialised
from tracking.decision.power import Expected


def of(found, about):
    """The only finding about something."""
    (one,) = [finding for finding in found if finding.about == about]
    return one


@pytest.fixture
def registered(monkeypatch):
    """A function that registers a data set and loads it."""

    def loaded(inputs, labels, classes=3, test=0, **more):
        source = RawData(
            inputs, labels, tuple(f"class {one}" for one in range(classes)), test, "here", **more
        )
        monkeypatch.setitem(DATASETS, "made", lambda _: source)
        return load("made")

    return loaded


def planned(**changes):
    """The plan of the first command: 8 trials of 8 seeds, so at most 20 to confirm."""
    return resolve(changes)


def drawn(n=300, features=4, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return (draw.normal(size=(n, features)) + labels[:, None]).astype(np.float32), labels


def test_sound_data_have_no_doubts_but_their_size(registered):
    data = registered(*drawn(3000))
    found = findings(data, planned(effect=0.02))
    assert {one.level for one in found} == {"fine"}
    low, high = Expected.of(1050, 0.02, None, 20).detectable
    sentence = f"a gain in accuracy of {100 * low:.2f} to {100 * high:.2f} pp or more is found"
    assert sentence in of(found, "test").text
    assert of(found, "test").text.endswith("That covers --effect 2")
    within = of(findings(data, planned(effect=0.008)), "test").text
    assert within.endswith("--effect 0.8 lies within this range")
    assert "(6 seeds, 1 050 test examples)" in of(findings(data, planned(confirm_seeds=6)), "test").text
    assert "each is 4 numbers" in of(found, "examples").text
    small = findings(registered(*drawn()), planned())
    assert of(small, "small splits").level == of(small, "test").level == "doubt"
    assert "--effect 0.3 would take 970 of them or more" in of(small, "test").text


def test_repeated_examples_are_found_wherever_they_are(registered):
    inputs, labels = drawn(1200)
    inputs[-100:-90], labels[-100:-90] = inputs[:10], labels[:10]  # of 100 in the test split
    inputs[500:503] = inputs[503:506]  # the labels are the same there
    inputs[601] = inputs[600]  # another label
    found = findings(registered(inputs, labels, test=100), planned())
    leaks = [one for one in found if one.about == "leakage"]
    train = {one.numpy().tobytes() for one in load("made").splits["train"].inputs}
    of_test = sum(row.tobytes() in train for row in inputs[-100:])
    assert 6 <= of_test <= 10
    (leak,) = [one for one in leaks if " of test " in one.text]
    assert leak.level == "wrong"
    assert leak.text.startswith(f"{of_test} of 100 examples of test")
    assert of(found, "labels").text.startswith("1 inputs occur with different labels")


def test_texts_are_compared_as_texts(registered):
    """Rare words are all the same token; texts that differ in them are not the same."""
    texts = np.array(
        [f"the same words {row // 2}" if row < 80 else f"rare{row} words{row}" for row in range(400)], object
    )
    data = registered(texts, np.arange(400) // 2 % 2, classes=2)
    train = data.splits["train"].shown
    found = {one.text.split()[0] for one in findings(data, planned()) if one.about == "duplicates"}
    assert found == {str(len(train) - len(set(train)))}


def test_constant_extreme_and_leaking_features_are_named(registered):
    inputs, labels = drawn(6000)
    inputs[:, 1] = 3
    inputs[::1500, 2] = 1e6
    inputs[:, 3] = labels * 2 - 5
    found = findings(registered(inputs, labels, features=("age", "year", "income", "code")), planned())
    constant, extreme, leaking = (one.text for one in found if one.about == "features")
    assert "never vary" in constant
    assert "year" in constant
    assert "income" in extreme
    assert leaking.startswith("code alone determines the class")


def test_uneven_classes_and_numbers_that_are_not_finite_are_found(registered):
    inputs, labels = drawn(600)
    uneven = np.where(np.arange(600) % 20, 0, 1 + np.arange(600) // 20 % 2)
    found = findings(registered(inputs, uneven), planned())
    assert "Always saying 'class 0' is 9" in of(found, "classes").text
    inputs[5, 2] = np.nan
    assert "wrong" in {one.level for one in findings(registered(inputs, labels), planned())}


# ---- Networks


class Broken(nn.Module):
    def forward(self, inputs):
        raise KeyError("no such thing")


class Tuple(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs), None


class OverBatch(nn.Module):
    """Normalises over the examples, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.out(self.norm(inputs))


class Chance(nn.Linear):
    def forward(self, inputs):
        return super().forward(nn.functional.dropout(inputs, 0.5, training=True))


class Detached(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs).detach()


class PartlyUsed(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.used(inputs)


class ZeroStart(nn.Module):
    """Its first layer gets a gradient from the second step on."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        nn.init.zeros_(self.second.weight)

    def forward(self, inputs):
        return self.second(self.first(inputs).relu())


class ByValue(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs if inputs.sum() > 0 else -inputs)


def linear(*end):
    return nn.Sequential(nn.Linear(4, 3), *end)


def loud():
    layer = nn.Linear(4, 3)
    nn.init.normal_(layer.weight, std=100)
    return layer


def same():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.fixture
def looked(registered):
    """A function that lists the findings on a network, on data with four features and three classes."""

    def of_network(build, rate=1e-2):
        own = Architecture("own", lambda shape, classes: build(), {}, version=f"{build}")
        task = Task("made", "own", Recipe(epochs=1, learning_rate=rate), network=own)
        plan = resolve({"seeds": 2, "trials": 2})
        return list(network.findings(plan, Site(), task, registered(*drawn(600))))

    return of_network


FIVE = "has shape (32, 5); wanted (32, 3). The last layer has 5 outputs; wanted 3"


@pytest.mark.parametrize(
    ("build", "about", "level", "text"),
    [
        (Broken, "network", "wrong", "KeyError: 'no such thing' (line "),
        (lambda: nn.Linear(7, 3), "network", "wrong", "own cannot take inputs of shape (4,)"),
        (lambda: nn.Linear(4, 5), "output", "wrong", FIVE),
        (lambda: Tuple(4, 3), "output", "wrong", "it returns tuple"),
        (lambda: linear(nn.Softmax(-1)), "output", "wrong", "a softmax is at the end"),
        (lambda: linear(nn.Sigmoid()), "output", "wrong", "a sigmoid is at the end?"),
        (OverBatch, "output", "wrong", "depends on the others in its batch"),
        (lambda: Chance(4, 3), "output", "wrong", "chance in evaluation mode"),
        (lambda: nn.Linear(4, 3).requires_grad_(False), "parameters", "wrong", "none is trained"),
        (lambda: Detached(4, 3), "gradient", "wrong", "reaches no parameter"),
        (PartlyUsed, "gradient", "doubt", "does not reach 2 of 4 parameters: spare.weight, spare.bias"),
        (ZeroStart, "gradient", "fine", "reaches every parameter"),
        (loud, "loss", "doubt", "begins too large"),
        (same, "seeds", "doubt", "two seeds begin with the same weights"),
        (lambda: ByValue(4, 3), "fusing", "doubt", "they cannot be fused, as "),
        (lambda: ByValue(4, 3), "export", "doubt", "torch cannot export the network"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_faults_of_a_network_are_found(looked, build, about, level, text):
    one = of(looked(build), about)
    assert one.level == level
    assert text in one.text


def test_a_sound_network_has_no_doubts(looked):
    found = looked(lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    assert {one.level for one in found} == {"fine"}
    assert [one.about for one in found] == "parameters loss gradient learning fusing time export".split()
    assert of(found, "parameters").text.startswith("131; ")
    assert "log 3 = 1.10" in of(found, "loss").text


def test_log_probabilities_are_logits(looked):
    found = looked(lambda: linear(nn.LogSoftmax(-1)))
    assert "wrong" not in {one.level for one in found}


INITIALISATIONS = 200
WIDTHS = (8, 16, 18, 27, 45, 48, 50, 59)
POINTS = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
WORDS = torch.randint(0, 60, (32, 13), generator=torch.Generator().manual_seed(1))


def deep(width, *end, bias=True):
    """A narrow perceptron of six hidden layers and two classes: its outputs hardly depend on its inputs."""
    hidden = [layer for place in range(6) for layer in (nn.Linear(width if place else 4, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 2, bias=bias), *end)


def of_words(*end):
    return nn.Sequential(ARCHITECTURES["text_cnn"].build((13,), 2, vocabulary=60), *end)


def refused(make, seed, inputs):
    """The finding on the outputs of one initialisation, and whether they lie in [0, 1] to begin with."""

    def build():
        return initialised(make, seed).eval()

    with torch.no_grad():
        logits = build()(inputs)
    why = network.probabilities(build, inputs, logits, scalable=inputs is POINTS)
    return why, bool(logits.min() >= 0 and logits.max() <= 1)


@pytest.mark.parametrize(
    ("make", "inputs", "by_chance"),
    [
        (lambda seed: deep(WIDTHS[seed % 8]), POINTS, 10),
        (lambda seed: deep(WIDTHS[seed % 8], bias=False), POINTS, 10),
        (lambda _: of_words(), WORDS, 5),
    ],
)
def test_a_network_without_an_activation_at_its_end_is_never_refused(make, inputs, by_chance):
    found = [refused(partial(make, seed), seed, inputs) for seed in range(INITIALISATIONS)]
    assert sum(within for _, within in found) > by_chance  # fresh logits alone would not do
    assert [why for why, _ in found if why] == []


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (nn.Sigmoid, "a sigmoid is at the end"),
        (nn.Hardsigmoid, "a sigmoid is at the end"),
        (lambda: nn.Softmax(-1), "a softmax is at the end"),
    ],
    ids=["sigmoid", "hardsigmoid", "softmax"],
)
@pytest.mark.parametrize("kind", ["numbers", "words"])
def test_an_activation_at_the_end_is_always_seen(kind, end, text):
    count = INITIALISATIONS if kind == "numbers" else 20  # those for words take a second each
    for seed in range(count):
        make = partial(deep, WIDTHS[seed % 8]) if kind == "numbers" else of_words
        why, _ = refused(lambda make=make: make(end()), seed, POINTS if kind == "numbers" else WORDS)
        assert why is not None, seed
        assert text in why.text


def test_outputs_that_are_never_below_zero_or_never_move_are_not_refused():
    for seed in range(40):
        assert refused(lambda seed=seed: deep(WIDTHS[seed % 8], nn.ReLU()), seed, POINTS)[0] is None
    assert refused(lambda: nn.Linear(4, 2).requires_grad_(False), 0, POINTS)[0] is None


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e5])
def test_rounding_is_not_taken_for_chance_or_for_the_others_in_the_batch(scale):
    """One logit is a small difference of large numbers, as in a network whose inputs lie far out."""
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight *= scale
        layer.weight[0] /= 1e4
    torch.manual_seed(0)
    with torch.no_grad():
        logits = layer(POINTS)
        rough = logits + 1e-5 * logits.abs().max() * torch.randn(logits.shape)
        assert network.alone(layer, POINTS, rough) is None
        assert network.alone(OverBatch().eval(), POINTS, OverBatch().eval()(POINTS)) is not None


def test_a_learning_rate_that_is_too_high_is_found(looked):
    assert of(looked(lambda: nn.Linear(4, 3), rate=1e6), "learning").level == "wrong"


# ---- The command


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_the_exit_code_is_1_for_faults_and_2_for_wrong_input(directory, capsys):
    (directory / "checked_nets.py").write_text(
        "from torch import nn\ndef good(shape, classes): return nn.Linear(shape[0], classes)\n"
        "def soft(shape, classes): return nn.Sequential(nn.Linear(shape[0], classes), nn.Softmax(-1))\n"
    )
    inputs, labels = drawn(600)
    np.savez(directory / "made.npz", x=inputs, y=labels)
    assert main("--dataset made.npz --architecture checked_nets:good --seeds 2".split()) == 0
    shown = capsys.readouterr().out
    assert "✓ learning" in shown
    assert "· read: read train: x and y" in shown
    assert main("--dataset made.npz --architecture checked_nets:soft --json".split()) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"level": "wrong", "about": "output"}.items() <= found["made/soft"][-1].items()
    assert main(["--dataset", "nothing.npz"]) == 2
    assert "there is no data set 'nothing.npz'" in capsys.readouterr().err


def test_a_sweep_refuses_a_network_with_a_fault(directory):
    from sweeps.cli.run_plan import prepare

    (directory / "checked_soft.py").write_text(
        "from torch import nn\ndef soft(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64,"
        " classes), nn.Softmax(-1))\n"
    )
    plan = resolve({"architectures": {"soft": "checked_soft:soft"}, "tasks": ["digits/soft"]})
    with pytest.raises(WrongInput, match="a softmax is at the end"):
        prepare(plan, Site(), plan.tasks[0], {}, print)


def test_a_network_and_a_data_set_of_ours_pass():
    plan = resolve({"tasks": ["digits/mlp"], "seeds": 2})
    assert {one.level for one in check(plan, Site(), plan.tasks[0])} <= {"fine", "doubt"}
