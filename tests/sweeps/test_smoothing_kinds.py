"""Each kind of smoothing at its limits, in populations of both kinds."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lscal.smoothing import DISTRIBUTIONS
from sweeps.data.dataset import Dataset, Split
from sweeps.data.load import load
from sweeps.errors import WrongInput
from sweeps.plan import short_digest
from sweeps.settings import resolve
from sweeps.task import Recipe
from sweeps.training.autotune import choose
from sweeps.training.batches import Batches
from sweeps.training.checkpoint import Checkpoint
from sweeps.training.engine import Engine
from sweeps.training.member import Member
from sweeps.training.population import FusedPopulation, LoopedPopulation, learning_rate_at
from sweeps.training.smoothing_kinds import KINDS, SmoothingNoise, noise_of, parsed

CPU = torch.device("cpu")
KINDS_OF_POPULATION = [FusedPopulation, LoopedPopulation]
CLASSES, STEPS, EPOCHS, BATCH = 5, 4, 3, 16
EXAMPLES = STEPS * BATCH


def made():
    """A small data set: 5 classes that lie one beside the other, of unequal size; some examples were
    labelled by people.
    """
    generator = torch.Generator().manual_seed(7)
    labels = torch.multinomial(torch.tensor([0.4, 0.1, 0.2, 0.2, 0.1]), EXAMPLES, True, generator=generator)
    inputs = 0.8 * labels[:, None] + torch.randn(EXAMPLES, 6, generator=generator)
    human = torch.rand(EXAMPLES, CLASSES, generator=generator, dtype=torch.float64).softmax(1)
    human[::3] = torch.nan
    split = Split(inputs, labels, human=human)
    names = ("a", "b", "c", "d", "e")
    return Dataset(
        "made",
        dict.fromkeys(("train", "select", "calibrate", "test"), split),
        names,
        (0.0,),
        (1.0,),
        "digest",
        "here",
    )


DATASET = made()
LABELS = DATASET.splits["train"].labels
EACH = torch.rand(EXAMPLES, CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(
    1
)


def no_teacher():
    raise AssertionError("no teacher is wanted")


def noise(name, dataset=DATASET, teach=no_teacher):
    return noise_of(name, dataset, teach)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The file of each kind that has one."""
    folder = tmp_path_factory.mktemp("files")
    given = {
        "similarity": np.arange(25.0).reshape(5, 5) / 10,
        "table": np.roll(np.tile([0.2, 0.3, 0.1, 0.25, 0.15], (5, 1)), 1, 1),
        "per_class": np.array([0.2, 1.0, 0.5, 0.0, 0.7]),
        "examples": EACH.numpy(),
        "teacher": 5 * torch.randn(EXAMPLES, CLASSES, generator=torch.Generator().manual_seed(2)).numpy(),
    }
    for name, numbers in given.items():
        np.save(folder / f"{name}.npy", numbers)
    return {name: f"{name}:{folder}/{name}.npy" for name in given}


@pytest.fixture(scope="module")
def every(files):
    """All kinds, and both schedules: by name, what members need."""
    names = [
        *files.values(),
        "uniform",
        "class_prior",
        "similarity",
        "human",
        "online",
        "margin",
        "confidence_penalty",
        "uniform@decay",
    ]
    return {name: noise(name) for name in [*names, "online@warm_up", f"{files['examples']}@decay"]}


@pytest.fixture(autouse=True)
def one_thread():
    """As in a shard of the engine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network():
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))


def member(smoothing, epsilon=0.3, seed=1):
    return Member(epsilon, seed, 0.05, 0.01, smoothing)


FEED = Batches.of(DATASET, Recipe(batch_size=BATCH), CPU)


def train(population, first=0, last=EPOCHS):
    """Some epochs; the losses of each step."""
    losses = []
    for epoch in range(first, last):
        population.begin(epoch)
        for step, (inputs, labels, rows) in enumerate(FEED.epoch(population.seeds, epoch), epoch * STEPS):
            losses.append(
                population.step(
                    inputs, labels, learning_rate_at(step, EPOCHS * STEPS), step / (EPOCHS * STEPS), rows
                )
            )
    return torch.stack(losses)


def trained(kind, members, noises):
    population = kind(members, network, noises, CPU)
    return population, train(population)


def weights(population):
    return {name: value for name, value in population.state().items() if name.startswith("parameter")}


def same(one, other, **tolerance):
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], **tolerance)


EXACT = {"atol": 0, "rtol": 0}
ROUNDED = {"atol": 1e-5, "rtol": 1e-4}


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_without_epsilon_every_kind_is_cross_entropy_to_the_last_bit(kind, every):
    population, losses = trained(kind, [member(name, 0.0) for name in every], every)
    plain = kind([member("plain", 0.0)], network, {"plain": SmoothingNoise(torch.full((CLASSES,), 0.2))}, CPU)
    expected = train(plain)
    for row, name in enumerate(every):
        assert torch.equal(losses[:, row], expected[:, 0]), name
        for part, value in weights(population).items():
            assert torch.equal(value[row], weights(plain)[part][0]), name


def test_with_epsilon_every_kind_is_another(every):
    _, losses = trained(FusedPopulation, [member(name) for name in every], every)
    assert len(losses[-1].unique()) == len(every)


def test_fused_and_looped_agree(every):
    members = [member(name, 0.2 + 0.01 * place, place % 2) for place, name in enumerate(every)]
    fused, looped = (trained(kind, members, every)[0] for kind in KINDS_OF_POPULATION)
    assert fused.state().keys() == looped.state().keys()
    for name, value in fused.state().items():
        torch.testing.assert_close(value, looped.state()[name], **ROUNDED, check_dtype=False)


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_a_member_is_itself_in_any_company(kind, every):
    members = [member(name, 0.25, place % 3) for place, name in enumerate((*every, "online", "margin"))]
    whole = trained(kind, members, every)[0].state()
    for rows in ([4], [16, 3, 9, 14], list(range(0, len(members), 3))):
        part = trained(kind, [members[row] for row in rows], every)[0].state()
        assert part.keys() == whole.keys()
        for name, value in part.items():
            assert torch.equal(value, whole[name][rows]), name


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_a_table_of_one_hots_is_no_smoothing(kind):
    noises = {"table": SmoothingNoise(torch.eye(CLASSES, dtype=torch.float64)), "uniform": noise("uniform")}
    tabled, plain = (trained(kind, [one], noises)[0] for one in (member("table"), member("uniform", 0.0)))
    same(tabled, plain, **ROUNDED)


def test_weights_of_one_per_class_are_uniform(tmp_path):
    np.savetxt(tmp_path / "ones.csv", np.ones(CLASSES))
    found = noise(f"per_class:{tmp_path}/ones.csv")
    torch.testing.assert_close(found.table, torch.full((CLASSES, CLASSES), 0.2, dtype=torch.float64))
    assert found.uniform


def test_weights_per_class_are_an_epsilon_for_each(files):
    found, epsilon = noise(files["per_class"]).table, 0.4
    for label, weight in enumerate((0.2, 1.0, 0.5, 0.0, 0.7)):
        onehot = torch.eye(CLASSES, dtype=torch.float64)[label]
        expected = (1 - epsilon * weight) * onehot + epsilon * weight / CLASSES
        torch.testing.assert_close((1 - epsilon) * onehot + epsilon * found[label], expected)


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_equal_rows_per_example_are_a_table(kind, tmp_path, files):
    table = noise(files["table"]).table
    np.save(tmp_path / "each.npy", table[LABELS].numpy())
    noises = {"table": SmoothingNoise(table), "each": noise(f"examples:{tmp_path}/each.npy")}
    tabled, each = (trained(kind, [member(name)], noises)[0] for name in noises)
    same(tabled, each, **ROUNDED)


def test_each_example_has_its_own_distribution():
    """The loss of the first step, by hand."""
    one = FusedPopulation(
        [member("each", 0.3, 1), member("each", 0.1, 2)],
        network,
        {"each": SmoothingNoise(noise("uniform").table, EACH)},
        CPU,
    )
    inputs, labels, rows = next(FEED.epoch(one.seeds, 0))
    before = [torch.stack([one.logits(batch)[row] for batch in inputs])[row] for row in range(2)]
    losses = one.step(inputs, labels, 0.0, 0.0, rows)
    for row, epsilon in enumerate((0.3, 0.1)):
        target = (1 - epsilon) * nn.functional.one_hot(LABELS[rows[row]], CLASSES) + epsilon * EACH[rows[row]]
        torch.testing.assert_close(
            losses[row], nn.functional.cross_entropy(before[row], target.float()), **ROUNDED
        )
    with pytest.raises(ValueError, match="wanted the rows"):
        one.step(inputs, labels, 0.0)


def test_what_people_say_counts_where_they_were_asked():
    found = noise("human").examples
    onehot = nn.functional.one_hot(LABELS, CLASSES).float()
    human = DATASET.splits["train"].human.float()
    assert torch.equal(found[::3], onehot[::3])
    assert torch.equal(found[1::3], human[1::3])
    sure = replace(DATASET, splits={"train": replace(DATASET.splits["train"], human=onehot.double())})
    noises = {"human": noise("human", sure), "uniform": noise("uniform")}
    same(
        *(trained(FusedPopulation, [one], noises)[0] for one in (member("human"), member("uniform", 0.0))),
        **ROUNDED,
    )


def test_a_teacher_is_softened_by_its_temperature(files):
    logits = torch.from_numpy(np.load(files["teacher"].partition(":")[2]))
    expected = (logits.double() / 4).softmax(1).float()
    torch.testing.assert_close(noise(files["teacher"]).examples, expected)
    torch.testing.assert_close(noise("teacher", teach=lambda: logits).examples, expected)


def test_mass_goes_to_classes_which_are_taken_for_the_label():
    """Five classes on a circle: each is taken for its neighbours."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(400) % CLASSES
    angle = 2 * torch.pi * labels / CLASSES
    inputs = torch.stack([angle.cos(), angle.sin()], 1) + 0.5 * torch.randn(400, 2, generator=generator)
    circle = replace(DATASET, splits={"train": Split(inputs, labels)})
    found = noise("similarity", circle).table
    assert (found.diagonal() == 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(CLASSES, dtype=torch.float64))
    for label in range(CLASSES):
        assert found[label, [(label + 1) % CLASSES, (label - 1) % CLASSES]].sum() > 0.7
    assert torch.equal(found, noise("similarity", circle).table)
    rare = replace(
        circle, splits={"train": Split(inputs, labels.where(torch.arange(400) != 3, 4).where(labels != 3, 2))}
    )
    assert torch.equal(
        noise("similarity", rare).table[3], torch.tensor([0.25, 0.25, 0.25, 0, 0.25], dtype=torch.float64)
    )


def test_given_similarities_leave_the_label_out(files):
    found = noise(files["similarity"]).table
    numbers = np.arange(25.0).reshape(5, 5) / 10
    for row in range(CLASSES):
        others = np.exp(np.delete(numbers[row], row))
        np.testing.assert_allclose(np.delete(found[row].numpy(), row), others / others.sum())


def test_similarity_of_texts_is_that_of_their_words():
    """Class 0 and 1 share words; class 2 has its own."""
    chance = np.random.default_rng(1)
    labels = np.arange(90) % 3
    words = np.stack([chance.choice([1, 2, 3, 4] if label < 2 else [5, 6, 7, 8], 6) for label in labels])
    split = Split(torch.from_numpy(words), torch.from_numpy(labels))
    texts = Dataset("texts", {"train": split}, ("a", "b", "c"), (), (), "digest", "here", ("",) * 9)
    found = noise("similarity", texts).table
    assert found[0, 1] > 0.8
    assert found[1, 0] > 0.8


@pytest.mark.parametrize(
    ("name", "shares"), [("uniform@decay", lambda t: 1 - t), ("uniform@warm_up", lambda t: min(1, 2 * t))]
)
@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_a_schedule_moves_epsilon(kind, name, shares):
    population = kind([member(name, 0.4)], network, {name: noise(name)}, CPU)
    inputs, labels, rows = next(FEED.epoch([1], 0))
    logits = population.logits(inputs[0])[0]
    for share in (0.0, 0.2, 0.5, 0.9):
        loss = population.step(inputs, labels, 0.0, share, rows)[0]
        expected = nn.functional.cross_entropy(logits, labels[0], label_smoothing=0.4 * shares(share))
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_online_smoothing_is_that_of_a_plain_loop(kind):
    """One model, autograd, and a table that is counted example by example."""
    epsilon = 0.4
    members = [member("uniform", 0.1), member("online", 0.1), member("online", epsilon)]
    population, losses = trained(kind, members, {name: noise(name) for name in ("uniform", "online")})
    torch.manual_seed(1)
    model = network()
    stepper = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.01)
    table = torch.full((CLASSES, CLASSES), 1 / CLASSES)
    for epoch in range(EPOCHS):
        predicted = {label: [] for label in range(CLASSES)}
        for step, (inputs, labels, _) in enumerate(FEED.epoch([1], epoch), epoch * STEPS):
            logits = model(inputs[0])
            for own, label in zip(logits.detach(), labels[0].tolist(), strict=True):
                if int(own.argmax()) == label:
                    predicted[label].append(own.softmax(0))
            target = (1 - epsilon) * nn.functional.one_hot(labels[0], CLASSES) + epsilon * table[labels[0]]
            loss = nn.functional.cross_entropy(logits, target)
            torch.testing.assert_close(losses[step][2], loss.detach(), **ROUNDED)
            stepper.param_groups[0]["lr"] = 0.05 * learning_rate_at(step, EPOCHS * STEPS)
            stepper.zero_grad()
            loss.backward()
            stepper.step()
        for label, rows in predicted.items():
            if rows:
                table[label] = torch.stack(rows).mean(0)
    population.begin(EPOCHS)
    torch.testing.assert_close(population.means.means[2], table, **ROUNDED)
    assert table.std() > 0.1


def test_online_tables_of_sequences_leave_out_what_has_no_label():
    one = noise("online")
    model = lambda: nn.Sequential(nn.Linear(6, CLASSES))  # noqa: E731
    inputs, labels = torch.randn(1, 7, 3, 6), torch.randint(0, CLASSES, (1, 7, 3))
    labels[0, :, 2] = -100
    found = []
    for shown in (inputs, torch.cat([inputs[:, :, :2], 100 * inputs[:, :, 2:]], 2)):
        population = FusedPopulation([member("online")], model, {"online": one}, CPU, "sgd")
        losses = [population.step(shown, labels, 1.0) for _ in range(2)]
        population.begin(1)
        found.append(torch.cat([*losses, population.step(shown, labels, 1.0)]))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(kind, every, tmp_path):
    names = ["online", "uniform@decay", "online@warm_up", "human"]
    members = [member(name, 0.3, seed) for name in names for seed in (1, 2)]
    whole = trained(kind, members, every)[0]
    half = kind(members, network, every, CPU)
    train(half, 0, 2)
    Checkpoint("eight", tuple(range(8)), half.state(), {}, torch.full((8,), 2)).write(tmp_path / "half")
    resumed = kind(members, network, every, CPU)
    resumed.load(Checkpoint.read(tmp_path / "half").state)
    kept = half.kept([5, 0])
    for one, rows in ((resumed, list(range(8))), (kept, [5, 0])):
        train(one, 2)
        for name, value in one.state().items():
            assert torch.equal(value, whole.state()[name][rows]), name


def test_a_negative_epsilon_pushes_away():
    for kind in KINDS_OF_POPULATION:
        population = kind(
            [member("uniform", -0.2), member("human", -0.1)],
            network,
            {"uniform": noise("uniform"), "human": noise("human")},
            CPU,
        )
        inputs, labels, rows = next(FEED.epoch([1], 0))
        logits = population.logits(inputs[0])[0]
        target = 1.2 * nn.functional.one_hot(labels[0], CLASSES) - 0.2 / CLASSES
        expected = -(target * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(population.step(inputs, labels, 0.0, 0.0, rows)[0], expected, **ROUNDED)
    with pytest.raises(ValueError, match="epsilon is 1"):
        member("uniform", 1.0)


# ---- names and files
# --------------------------------------------------------------------------------------------------


def test_a_name_has_a_kind_a_file_and_a_schedule():
    assert parsed("table:folder/a@b.npy@warm_up") == replace(
        parsed("table:x.npy"),
        base="table:folder/a@b.npy@warm_up",
        file="folder/a@b.npy",
        schedule="warm_up",
    )
    assert parsed("table:a@b.csv").file == "a@b.csv"
    assert all(parsed(name).kind == name for name in DISTRIBUTIONS)
    assert all(parsed(name).kind == name for name, kind in KINDS.items() if kind.file != "must")


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("table", np.ones((4, 4)) / 4, "over 4 classes; made has 5"),
        ("table", np.ones((5, 5)), "sums to 5"),
        ("table", np.full((5, 5), np.nan), "holds nan"),
        ("table", np.array(["a"]), "something else than numbers"),
        ("table", np.array([{}]), "something else than numbers"),
        ("table", np.zeros((2, 2, 2)), "one or two dimensions"),
        ("similarity", np.ones((5, 4)), r"wanted \(5, 5\)"),
        ("per_class", np.full(5, 1.5), "wanted 5 of 0 to 1"),
        ("examples", np.ones((9, 5)) / 5, r"wanted \(64, 5\): a row for each training example"),
        ("examples", np.ones((64, 5)), "row 0 .* sums to 5"),
        ("teacher", np.full((64, 5), np.nan), "row 0"),
    ],
)
def test_what_does_not_fit_is_named(name, numbers, message, tmp_path):
    np.save(tmp_path / "file.npy", numbers, allow_pickle=numbers.dtype == object)
    with pytest.raises(WrongInput, match=message):
        noise(f"{name}:{tmp_path}/file.npy")


def test_files_which_cannot_be_read_are_named(tmp_path):
    (tmp_path / "words.csv").write_text("cat,dog\n0.5,0.5\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    for file, message in (
        ("nowhere.npy", "No such file"),
        ("words.csv", "something else than numbers"),
        ("empty.npy", "something else"),
    ):
        with pytest.raises(WrongInput, match=message):
            noise(f"table:{tmp_path}/{file}")


def test_sequences_and_strangers_are_refused(files):
    sequences = replace(
        DATASET, splits={"train": Split(torch.zeros(64, 3, 6), LABELS[:, None].expand(-1, 3))}
    )
    for name in ("human", "teacher", "similarity", files["examples"]):
        with pytest.raises(WrongInput, match="sequences of labels"):
            noise(name, sequences)
    assert noise("class_prior", sequences).table.sum() == pytest.approx(1)
    strangers = replace(DATASET, splits={"train": replace(DATASET.splits["train"], human=None)})
    with pytest.raises(WrongInput, match="does not know how people label"):
        noise("human", strangers)
    many = replace(DATASET, classes=("x",) * 3000)
    with pytest.raises(WrongInput, match="a number for each pair of classes"):
        noise("online", many)


def test_another_content_of_a_file_is_another_study(tmp_path):
    keys = set()
    for numbers in (np.eye(10), np.eye(10), np.full((10, 10), 0.1)):
        np.save(tmp_path / "table.npy", numbers)
        plan = resolve({"smoothing": f"table:{tmp_path}/table.npy"})
        keys.add(short_digest(plan.science(plan.tasks[0], "digest")))
    assert len(keys) == 2


# ---- engine
# --------------------------------------------------------------------------------------------------


def test_an_engine_trains_a_teacher_once_and_members_by_it(monkeypatch):
    began = []
    whole = Engine.begin
    monkeypatch.setattr(Engine, "begin", lambda self, members: began.append(members) or whole(self, members))
    task = resolve({"epochs": 3}).tasks[0]
    engine = choose(task, load("digits"), ("teacher", "teacher@decay", "uniform"), CPU, 2, "looped")
    assert [len(members) for members in began if len(members) == 1 and members[0].epsilon == 0] == [1]
    taught = engine.noises["teacher"].examples
    labels = engine.dataset.splits["train"].labels
    assert (taught.argmax(1) == labels).float().mean() > 0.8
    assert taught.amax(1).mean() < 0.95
    assert torch.equal(taught, engine.noises["teacher@decay"].examples)
    trained = engine.train([Member(0.3, 0, 3e-3, 1e-2, name) for name in engine.noises], lambda _: None)
    assert trained.finite == (True,) * 3
    assert len(trained.curves["train_loss"][-1].unique()) == 3


@pytest.mark.parametrize("kind", KINDS_OF_POPULATION)
def test_a_dropped_member_is_a_constant_one_and_then_one_without(kind):
    """Beside members with other drops and none; to the last bit until its drop, and by a plain loop after."""
    drops = (1.0, 0.5, 0.25, 1.0)
    members = [replace(member("uniform", 0.3, 0), drop=drop) for drop in drops[:3]] + [member("uniform", 0.0)]
    noises = {"uniform": noise("uniform")}
    _, losses = trained(kind, members, noises)
    total = EPOCHS * STEPS
    for row, drop in ((1, 0.5), (2, 0.25)):
        last = math.ceil(drop * total)
        assert torch.equal(losses[:last, row], losses[:last, 0])
        assert not torch.equal(losses[last:, row], losses[last:, 0])
        alone = kind([members[row]], network, noises, CPU)
        assert torch.equal(train(alone)[:, 0], losses[:, row])
    state = kind([members[1]], network, noises, CPU)
    oracle = deepcopy(state.initial[0])
    optimiser = torch.optim.AdamW(
        oracle.parameters(), lr=members[1].learning_rate, weight_decay=members[1].weight_decay
    )
    for epoch in range(EPOCHS):
        for step, (inputs, labels, _) in enumerate(FEED.epoch((0,), epoch), epoch * STEPS):
            for group in optimiser.param_groups:
                group["lr"] = members[1].learning_rate * learning_rate_at(step, total)
            smoothing = 0.3 if step / total < 0.5 else 0.0
            loss = nn.functional.cross_entropy(oracle(inputs[0]), labels[0], label_smoothing=smoothing)
            assert float(loss.detach()) == pytest.approx(float(losses[step, 1]), abs=1e-5)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


@pytest.mark.parametrize(
    ("name", "base", "drops"),
    [
        ("uniform@drop", "uniform", (0.1, 0.6)),
        ("uniform@drop:0.3", "uniform", (0.3, 0.3)),
        ("class_prior@drop:0.2-0.5", "class_prior", (0.2, 0.5)),
        ("table:a@b.npy@drop:0.3", "table:a@b.npy", (0.3, 0.3)),
        ("uniform@decay", "uniform@decay", (1.0, 1.0)),
    ],
)
def test_a_drop_is_read_from_the_name(name, base, drops):
    assert (parsed(name).base, parsed(name).drops) == (base, drops)


@pytest.mark.parametrize("shares", ["0", "1", "0.5-0.2", "x", "0.1-0.2-0.3", "", "nan", "-0.3"])
def test_a_drop_that_is_no_share_is_refused(shares):
    with pytest.raises(WrongInput, match=r"allowed are @drop, @drop:SHARE and @drop:LOW-HIGH"):
        parsed(f"uniform@drop:{shares}")


def test_two_ranges_of_one_smoothing_are_refused():
    with pytest.raises(WrongInput, match="uniform@drop has two ranges"):
        resolve({"smoothing": "uniform@drop,uniform@drop:0.3"})
