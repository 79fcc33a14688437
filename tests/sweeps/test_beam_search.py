"""Translation: pieces, networks that translate, beam search, BLEU, and a sweep that weighs it."""

import itertools
import json
import os
from functools import partial
from pathlib import Path

import pyarrow
import pytest
import torch
from pyarrow import parquet
from torch.nn import functional

from sweeps.cli import run
from sweeps.data.builtin.multi30k import BEGIN, END, FILES, LENGTH, SPECIAL
from sweeps.data.dataset import IGNORED, SPLITS
from sweeps.data.load import load
from sweeps.data.splits import thinned
from sweeps.errors import WrongInput
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.builtin.translator import Translator
from sweeps.protocol.confirm import Confirmation
from sweeps.training.beam_search import bleu, sentence_statistics, statistics_of, text_of, translate
from sweeps.training.member import Member
from sweeps.training.population import LoopedPopulation
from sweeps.training.smoothing_kinds import SmoothingNoise
from tracking.decision.terms import Terms

sacrebleu = pytest.importorskip("sacrebleu.metrics")
pytest.importorskip("tokenizers")
SHARED = Path(os.environ.get("LSCAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GERMAN = ("eins", "zwei", "drei", "vier", "fünf", "sechs")
ENGLISH = ("one", "two", "three", "four", "five", "six")


def captions(count, first=0):
    """Numbers of one to three words in both languages."""
    every = [words for length in (1, 2, 3) for words in itertools.product(range(6), repeat=length)]
    chosen = [every[(7 * index) % len(every)] for index in range(first, first + count)]
    return [[" ".join(words[place] for place in own) for own in chosen] for words in (GERMAN, ENGLISH)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small language in the layout of Multi30k."""
    root = tmp_path_factory.mktemp("data")
    (root / "multi30k").mkdir()
    for name, (count, first) in zip(FILES, ((200, 0), (60, 200), (40, 100)), strict=True):
        german, english = captions(count, first)
        parquet.write_table(pyarrow.table({"de": german, "en": english}), root / "multi30k" / name)
    return root


@pytest.fixture(scope="module")
def numbers(folder):
    return load("multi30k", str(folder))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Translator(6, 7).eval().requires_grad_(False)


def test_labels_are_the_next_piece_and_the_end(numbers):
    split = numbers.splits["train"]
    ids = {piece: index for index, piece in enumerate(numbers.vocabulary)}
    assert [ids[piece] for piece in SPECIAL] == [0, 1, BEGIN, END]
    for row in (0, 17, 150):
        target, labels = split.stored[row, 1], split.labels[row]
        length = int((labels != IGNORED).sum())
        assert target[0] == BEGIN
        assert labels[length - 1] == END
        assert target[1:length].tolist() == labels[: length - 1].tolist()
        assert (target[length:] == 0).all()
        assert text_of([numbers.vocabulary[piece] for piece in labels[: length - 1]]) == split.shown[row]
    assert {len(numbers.splits[name].labels) for name in ("select", "calibrate")} == {30}
    assert numbers.shape == (2, LENGTH)
    assert numbers.sequences


def test_the_vocabulary_is_that_of_the_training_captions(folder, tmp_path):
    other = tmp_path / "multi30k"
    other.mkdir()
    for name in FILES:
        table = parquet.read_table(folder / "multi30k" / name)
        if not name.startswith("train"):
            table = pyarrow.table(
                {column: [f"{text} qqq" for text in table[column].to_pylist()] for column in ("de", "en")}
            )
        parquet.write_table(table, other / name)
    found = load("multi30k", str(tmp_path))
    assert found.vocabulary == load("multi30k", str(folder)).vocabulary
    assert (found.splits["test"].stored == 1).any()


def test_the_same_positions_are_kept_whenever_there_are_too_many(monkeypatch):
    monkeypatch.setattr("sweeps.data.splits.POSITIONS", 50)
    labels = torch.arange(200).reshape(20, 10).numpy().copy()
    labels[:, 7:] = IGNORED
    kept = thinned(labels)
    assert (kept != IGNORED).sum() == 50
    assert ((kept == labels) | (kept == IGNORED)).all()
    assert (kept == thinned(labels)).all()
    assert len({row for row, _ in zip(*(kept != IGNORED).nonzero(), strict=True)}) > 10


def test_intervals_take_the_positions_of_a_sentence_together(numbers):
    split = numbers.splits["test"]
    resamples = Confirmation(numbers, Terms("accuracy"), 4, "0.0", replicates=2).resamples
    rows = (split.labels != IGNORED).nonzero()[:, 0]
    assert len(resamples.block) == len(split.targets) == len(rows)
    assert len(rows) > len(rows.unique()) == len(resamples.block.unique())
    assert all(len(resamples.block[rows == row].unique()) == 1 for row in rows.unique())


def test_the_loss_of_a_batch_of_sequences_is_the_mean_over_their_tokens(numbers, monkeypatch):
    monkeypatch.setattr("sweeps.models.builtin.translator.DROPOUT", 0.0)
    split, rows = numbers.splits["train"], torch.arange(5)[None]
    inputs, labels = numbers.prepare(split.stored[:5])[None], split.labels[:5][None]
    members = [Member(0.0, 3, 1e-3, 0.0), Member(0.2, 3, 1e-3, 0.0)]
    noises = {
        "uniform": SmoothingNoise(
            torch.full((len(numbers.classes),), 1 / len(numbers.classes), dtype=torch.float64)
        )
    }
    build = partial(ARCHITECTURES["translator"].module, numbers)
    population = LoopedPopulation(members, build, noises, torch.device("cpu"))
    logits = population.logits(inputs[0])
    losses = population.step(inputs, labels, 0.0, rows=rows)
    for place, member in enumerate(members):
        expected = functional.cross_entropy(
            logits[place].flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=member.epsilon,
        )
        assert float(losses[place]) == pytest.approx(float(expected), rel=1e-5)


def test_padding_of_the_source_changes_nothing(network):
    short = torch.tensor([[3, 4, 5]])
    encoded, there = network.encode(short)
    padded, more = network.encode(torch.tensor([[3, 4, 5, 0, 0, 0]]))
    torch.testing.assert_close(padded[:, :3], encoded)
    tokens = torch.tensor([2])
    mine, _ = network.step(tokens, 0, network.sources(encoded), there, None)
    theirs, _ = network.step(tokens, 0, network.sources(padded), more, None)
    torch.testing.assert_close(mine, theirs)


def test_a_token_is_predicted_from_those_before_it_only(network):
    inputs = torch.tensor(
        [[[3, 4, 5, 6, 0, 0], [2, 4, 4, 6, 5, 3]], [[6, 4, 0, 0, 0, 0], [2, 5, 6, 3, 3, 0]]]
    )
    changed = inputs.clone()
    changed[:, 1, 4:] = 1
    torch.testing.assert_close(network(inputs)[:, :4], network(changed)[:, :4])
    assert not torch.allclose(network(inputs)[:, 4:], network(changed)[:, 4:])


def test_step_by_step_is_the_same_as_at_once(network):
    inputs = torch.tensor(
        [[[3, 4, 5, 6, 0, 0], [2, 4, 4, 6, 5, 3]], [[6, 4, 0, 0, 0, 0], [2, 5, 6, 3, 3, 0]]]
    )
    whole = network(inputs)
    encoded, there = network.encode(inputs[:, 0])
    past = None
    for place in range(6):
        logits, past = network.step(inputs[:, 1, place], place, network.sources(encoded), there, past)
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-5)


def likelihood(network, source, tokens):
    """log p of a translation, by one pass over it."""
    length = source.shape[1]
    target = torch.zeros(1, length, dtype=torch.int64)
    target[0, : len(tokens)] = torch.tensor([2, *tokens[:-1]])
    chances = network(torch.stack([source, target], 1)).log_softmax(-1)[0]
    return float(sum(chances[place, token] for place, token in enumerate(tokens)))


def test_a_wide_beam_finds_the_best_of_all_translations(network):
    """Against an exhaustive search over all translations of up to three tokens."""
    network.embedding.weight.data *= 0.3  # flat enough for the likeliest first word not to be the best
    source = torch.tensor([[3, 5, 6, 4]])
    network.places = network.places[:4]
    ends = [
        (*words, END)
        for length in range(3)
        for words in itertools.product([t for t in range(7) if t != END], repeat=length)
    ]
    unfinished = list(itertools.product([t for t in range(7) if t != END], repeat=3))
    scored = {
        words: likelihood(network, source, words) / ((5 + sum(token != END for token in words)) / 6) ** 0.6
        for words in [*ends, *unfinished]
    }
    best = [token for token in max(scored, key=scored.get) if token != END]
    assert translate(network, source, BEGIN, END, beam=7**3) == [best]


def test_a_beam_of_one_is_greedy(network):
    source = torch.tensor([[3, 5, 6, 4, 1, 0], [6, 6, 0, 0, 0, 0]])
    found = translate(network, source, BEGIN, END, beam=1)
    for row in range(2):
        tokens = []
        while len(tokens) < 5:
            target = torch.zeros(1, 6, dtype=torch.int64)
            target[0, : len(tokens) + 1] = torch.tensor([BEGIN, *tokens])
            tokens.append(
                int(network(torch.stack([source[row : row + 1], target], 1))[0, len(tokens)].argmax())
            )
            if tokens[-1] == END:
                break
        assert found[row] == [token for token in tokens if token != END]


@pytest.mark.parametrize("cut", [1, 3])
def test_bleu_is_that_of_sacrebleu(cut):
    references = [
        "A man in a blue shirt is standing on a ladder.",
        "Two dogs run, quickly, through the snow.",
        "A girl reads a book outside.",
    ]
    ours = [
        "A man in a blue shirt stands on a ladder.",
        "Two dogs run through snow",
        "A girl is reading a book outside in the sun.",
    ][:cut]
    statistics = sentence_statistics(ours, references[:cut])
    assert float(bleu(statistics.sum(0))) * 100 == pytest.approx(
        sacrebleu.BLEU().corpus_score(ours, [references[:cut]]).score, abs=1e-9
    )


def test_bleu_at_its_limits():
    same = sentence_statistics(["one two three four five"], ["one two three four five"])
    assert float(bleu(same.sum(0))) == pytest.approx(1)
    assert float(bleu(sentence_statistics([""], ["one two three four"]).sum(0))) == 0
    assert float(bleu(sentence_statistics(["x"], ["one two three four"]).sum(0))) == 0


def test_a_network_which_cannot_translate_is_told(numbers):
    with pytest.raises(WrongInput, match="needs the methods encode, sources and step"):
        statistics_of(torch.nn.Linear(2, 2), numbers)


def test_a_network_which_cannot_translate_is_refused_before_it_is_trained(
    folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "unable.py").write_text(
        "from torch import nn\n\nclass Unable(nn.Module):\n    def __init__(self, vocabulary):\n"
        "        super().__init__()\n"
        "        self.embedding, self.output = nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary)\n\n"
        "    def forward(self, tokens):\n        return self.output(self.embedding(tokens[:, 1]))\n\n"
        "def unable(shape, classes, vocabulary):\n    return Unable(vocabulary)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (
        run.main(["--dataset", "multi30k", "--architecture", "unable:unable", "--data-dir", str(folder)]) == 2
    )
    told = capsys.readouterr().err
    assert (
        "multi30k is a translation, and a network for it needs the methods encode, sources and step beside"
        " forward" in told
    )
    assert "piloting" not in told


def test_multi30k_tells_how_to_get_it(tmp_path):
    with pytest.raises(WrongInput, match="github.com/multi30k/dataset"):
        load("multi30k")
    with pytest.raises(WrongInput, match=r"train-00000-of-00001.parquet: no such file"):
        load("multi30k", str(tmp_path))
    parquet.write_table(pyarrow.table({"de": ["a"], "fr": ["b"]}), tmp_path / FILES[0])
    with pytest.raises(WrongInput, match="has columns de, fr; wanted de and en"):
        load("multi30k", str(tmp_path))


@pytest.mark.skipif(not (SHARED / "multi30k").is_dir(), reason="the Multi30k files are not there")
def test_multi30k_as_it_is():
    found = load("multi30k", str(SHARED))
    assert {name: len(found.splits[name].labels) for name in SPLITS} == {
        "train": 28608,
        "select": 507,
        "calibrate": 507,
        "test": 1000,
    }
    assert len(found.vocabulary) == 2000
    assert len(found.splits["test"].targets) == 4000
    assert found.splits["test"].shown[0] == "A man in an orange hat starring at something."


def test_a_sweep_weighs_bleu(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = [
        "--trials",
        "2",
        "--seeds",
        "2",
        "--confirm-seeds",
        "2",
        "--epochs",
        "2",
        "--execution",
        "looped",
    ]
    words = ["multi30k/translator", *small, "--policy", "accuracy", "--json"]
    assert run.main([*words, "--data-dir", str(folder)]) == 0
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)
    assert "BLEU" in captured.err
    if found["candidate"] > 0:
        assert found["conditions"][0]["name"] == "BLEU gain"
