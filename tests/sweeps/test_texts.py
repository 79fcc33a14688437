"""Texts: tokens, the questions of TREC, and the architectures that read them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import RawData
from sweeps.data.load import load
from sweeps.data.tokens import LONGEST, PADDING, UNKNOWN, encode, longest, vocabulary_of, words_of
from sweeps.errors import WrongInput
from sweeps.models.builtin import ARCHITECTURES
from sweeps.task import Recipe, Task
from sweeps.training.autotune import doubt_of
from sweeps.training.batches import Batches
from sweeps.training.engine import Engine
from sweeps.training.execution import Execution
from sweeps.training.member import Member
from sweeps.training.smoothing_kinds import noise_of

SHARED = Path(os.environ.get("LSCAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
READERS = ("text_cnn", "text_transformer")
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")


def test_words_and_marks():
    assert words_of("What's the  Größe of 3.5 CPUs?") == "what ' s the größe of 3 . 5 cpus ?".split()


def test_the_vocabulary_is_by_frequency_then_by_alphabet():
    texts = ["b a c", "b a", "b once"]
    assert vocabulary_of(texts) == (PADDING, UNKNOWN, "b", "a")
    assert vocabulary_of(texts, most=3) == (PADDING, UNKNOWN, "b")


def test_texts_become_numbers():
    vocabulary = (PADDING, UNKNOWN, "b", "a")
    assert encode(["A b", "", "x a a a a"], vocabulary, 3).tolist() == [[3, 2, 0], [1, 0, 0], [1, 3, 3]]


def test_the_few_longest_texts_are_cut():
    assert longest(["a b c", "a", ""]) == 3
    assert longest(["a b c"] * 500 + ["a " * 50]) == 3
    assert longest([""]) == 1
    assert longest(["a " * 1000] * 3) == LONGEST


def test_the_vocabulary_is_that_of_train_alone(monkeypatch):
    texts = np.array([f"word{row % 40} word{row % 40} class{row % 2}" for row in range(400)])
    source = RawData(texts, np.arange(400) % 2, ("a", "b"), 40, "made")
    monkeypatch.setitem(DATASETS, "made", lambda _: source)
    texts[360:] = "unseen unseen class0"
    data = load("made")
    train, test = data.splits["train"], data.splits["test"]
    assert data.shape == (3,)
    assert "unseen" not in data.vocabulary
    assert test.shown[0] == "unseen unseen class0"
    assert test.inputs.tolist() == [[1, 1, data.vocabulary.index("class0")]] * 40
    for row in (0, 17):
        assert " ".join(data.vocabulary[token] for token in train.inputs[row]) == train.shown[row]


def write(folder, texts, labels, test_texts, test_labels):
    folder.mkdir(parents=True, exist_ok=True)
    for name, own, of_own in zip(FILES, (texts, test_texts), (labels, test_labels), strict=True):
        table = pyarrow.table({"text": own, "label": pyarrow.array(of_own, pyarrow.int64())})
        parquet.write_table(table, folder / name)


def test_no_question_of_trec_is_in_train_and_test(tmp_path):
    train, test = ["who ?", "why ?", "who ?", "when ?", "where ?"], ["when ?", "how ?"]
    write(tmp_path / "trec" / "data", train, [3, 2, 0, 5, 4], test, [5, 2])
    source = DATASETS["trec"](tmp_path)
    assert source.inputs.tolist() == ["who ?", "why ?", "where ?", "when ?", "how ?"]
    assert source.labels.tolist() == [3, 2, 4, 5, 2]
    assert source.test == 2


def test_trec_that_is_missing_or_another_file_is_refused(tmp_path):
    def refused(message, folder=str(tmp_path)):
        with pytest.raises(WrongInput, match=message):
            load("trec", folder)

    refused(r"trec needs its files, and no data directory was given. Get .*cogcomp.seas.upenn.edu", None)
    refused(r"cannot read .*trec/train-00000-of-00001.parquet: no such file. Get .* --data-dir DIR")
    write(tmp_path, ["who ?"], [6], ["how ?"], [2])
    refused("has labels from 6 to 6; wanted 0 to 5")
    write(tmp_path, [], [], ["how ?"], [2])
    refused("has no rows; wanted 0 to 5")


@pytest.mark.skipif(not (SHARED / "trec").exists(), reason="TREC is not there: set LSCAL_DATA")
def test_the_real_trec():
    source = DATASETS["trec"](SHARED)
    assert (len(source.labels), source.test) == (5871, 500)
    assert len(set(source.inputs)) == 5871
    assert np.bincount(source.labels[-500:]).tolist() == [9, 94, 138, 65, 81, 113]


def build(name, positions=9, seed=0):
    torch.manual_seed(seed)
    return ARCHITECTURES[name].build((positions,), 3, vocabulary=20).double()


def tokens(*size):
    """Texts of 1 to all positions, then padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, size, generator=generator)
    lengths = torch.randint(1, size[-1] + 1, size[:-1], generator=generator)
    return ids * (torch.arange(size[-1]) < lengths.unsqueeze(-1))


@pytest.mark.parametrize("name", READERS)
def test_padding_never_matters(name):
    module = build(name, positions=30).eval()
    short = tokens(12, 7)
    expected = module(short)
    for more in (1, 23):
        torch.testing.assert_close(module(torch.nn.functional.pad(short, (0, more))), expected)
    with torch.no_grad():
        module.words.weight[0] += 5
    torch.testing.assert_close(module(short), expected)


@pytest.mark.parametrize("name", READERS)
def test_the_order_of_words_matters(name):
    module = build(name).eval()
    one, reverse = torch.tensor([[5, 6, 7, 8, 0, 0, 0, 0, 0], [8, 7, 6, 5, 0, 0, 0, 0, 0]])[:, None]
    assert (module(one) - module(reverse)).abs().max() > 1e-4


@pytest.mark.parametrize("name", READERS)
def test_every_parameter_gets_a_gradient(name):
    module = build(name)
    cross_entropy(module(tokens(6, 9)), torch.arange(6) % 3).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize("name", READERS)
def test_stacked_members_compute_the_same_as_apart(name):
    apart = [build(name, seed=seed).eval() for seed in range(3)]
    parameters, buffers = stack_module_state(apart)
    skeleton = build(name, seed=9).eval()
    own = tokens(3, 6, 9)
    stacked = vmap(lambda parameters, buffers, one: functional_call(skeleton, (parameters, buffers), (one,)))
    expected = torch.stack([module(inputs) for module, inputs in zip(apart, own, strict=True)])
    torch.testing.assert_close(stacked(parameters, buffers, own), expected)


@pytest.mark.parametrize("name", READERS)
def test_a_step_never_looks_at_values(name):
    module = ARCHITECTURES[name].build((9,), 3, vocabulary=20).to("meta").train()
    module(torch.empty(4, 9, device="meta", dtype=torch.int64)).sum().backward()


@pytest.mark.parametrize("name", READERS)
def test_inputs_that_are_no_texts_are_refused(name):
    with pytest.raises(ValueError, match=r"inputs have shape \(1, 8, 8\); wanted token ids \(position,\)"):
        ARCHITECTURES[name].build((1, 8, 8), 3, vocabulary=20)
    with pytest.raises(ValueError, match=f"{name} takes token ids; the inputs of digits are numbers"):
        ARCHITECTURES[name].module(load("digits"))


def questions(_):
    """Texts of two classes, which differ in length and in the order of two words."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    pairs = ("fox red", "red fox")
    texts = [f"{pairs[label]} w{generator.integers(0, 6)}" + " and so on" * int(label) for label in labels]
    return RawData(np.array(texts), labels, pairs, 40, "made")


@pytest.mark.parametrize("name", READERS)
def test_networks_for_texts_train_fused_as_they_do_looped(monkeypatch, name):
    monkeypatch.setitem(DATASETS, "questions", questions)
    data = load("questions")
    task = Task("questions", name, Recipe(epochs=2, batch_size=32, learning_rate=5e-3))
    uniform = noise_of("uniform", data, lambda: torch.empty(0))
    cpu, execution = torch.device("cpu"), Execution("looped", "float32", 1, 2)
    looped = Engine(task, data, Batches.of(data, task.recipe, cpu), {"uniform": uniform}, cpu, execution)
    fused = replace(looped, execution=replace(execution, kind="fused"))
    assert doubt_of(looped, fused.execution) == ""
    members = [Member(0.1, seed, 5e-3, 1e-2) for seed in range(2)]
    results = [engine.train(members, lambda _: None) for engine in (looped, fused)]
    torch.testing.assert_close(*[looped.logits(one, "test") for one in results], atol=1e-4, rtol=1e-3)
    assert (results[1].curves["train_loss"][-1] < results[1].curves["train_loss"][0]).all()
