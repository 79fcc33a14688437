"""Patterns mean the tasks that are possible."""

import sys

import numpy as np
import pytest

from sweeps.cli.run import main
from sweeps.data.builtin import DATASETS
from sweeps.data.registry import Yields
from sweeps.errors import WrongInput
from sweeps.external import Catalogue
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.registry import Architecture, Reads
from sweeps.settings import resolve
from sweeps.task_patterns import matching

IMAGE_SETS = (
    "cifar10 cifar10n_aggregate cifar10n_random1 cifar10n_worst digits fashion_mnist fsdd fsdd_by_speaker"
).split()
OURS = Catalogue({}, {}, None)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("digits/*", [f"digits/{name}" for name in "cnn mlp resnet18 resnet20 resnet8 vit".split()]),
        ("trec/*", ["trec/text_cnn", "trec/text_transformer"]),
        ("multi30k/*", ["multi30k/translator"]),
        ("*/t*", ["multi30k/translator", "trec/text_cnn", "trec/text_transformer"]),
        ("*/mlp", [f"{name}/mlp" for name in IMAGE_SETS]),
    ],
)
def test_a_pattern_matches_the_tasks_that_are_possible(pattern, wanted):
    assert sorted(matching(pattern, OURS)) == wanted


OF_IMAGES = sorted(name for name, own in ARCHITECTURES.items() if "images" in own.reads.kinds)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_network_accepts_images_from_the_size_that_it_declares(name):
    side = ARCHITECTURES[name].reads.side
    assert isinstance(ARCHITECTURES[name].build((1, side, side + 1), 3), object)
    if side > 1:
        with pytest.raises(ValueError, match=f"at least {side} pixels a side"):
            ARCHITECTURES[name].build((1, side - 1, side + 1), 3)


def test_every_network_and_data_set_of_ours_declares_its_kinds():
    assert {name for name, own in ARCHITECTURES.items() if own.declared is None} == set()
    assert {name for name in DATASETS if OURS.yields(name) is None} == set()
    for own in ARCHITECTURES.values():
        assert own.reads_tokens == bool(set(own.reads.kinds) & {"tokens", "sequences"})
    assert OURS.seen("digits") == OURS.yields("digits")


def test_images_that_are_too_small_are_not_read(monkeypatch):
    large = Architecture("large", lambda shape, classes: None, {}, declared=Reads(("images",), side=16))
    monkeypatch.setitem(ARCHITECTURES, "large", large)
    assert "digits/large" not in matching("digits/*", OURS)
    assert matching("fashion_mnist/large", OURS) == ["fashion_mnist/large"]
    why = (
        "large reads images of at least 16 pixels a side, and digits yields images of 8 or more pixels a side"
    )
    with pytest.raises(WrongInput, match=why):
        matching("digits/large", OURS)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        (
            "digits/translator",
            "digits/translator is not possible: translator reads sequences, and digits yields images of 8",
        ),
        ("digits/t*", "no task 'digits/t*' is possible: "),
        (
            "multi30k/mlp",
            (
                "mlp reads images or features, and multi30k yields sequences. With multi30k go translator;"
                " with mlp go cifar10"
            ),
        ),
        ("nosuch/*", "no dataset named 'nosuch'"),
        ("digits/nosuch", "no architecture named 'nosuch'"),
    ],
)
def test_an_impossible_task_is_refused_at_once_in_one_sentence(task, why, capsys):
    assert main([task, "--dry-run"]) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_user_supplied_data_are_read_to_match_a_pattern_but_not_to_match_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{'good' if row % 2 else 'bad'} words number {row},{row % 2}" for row in range(200)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    inputs = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.savez(tmp_path / "points.npz", x=inputs, y=np.arange(200) % 2)
    (tmp_path / "kinds_nets.py").write_text(
        "from torch import nn\ndef of_numbers(shape, classes): return nn.Linear(shape[0], classes)\n"
        "def of_tokens(shape, classes, vocabulary): return nn.Embedding(vocabulary, classes)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    supplied = {
        "datasets": {"reviews": "reviews.csv", "points": "points.npz"},
        "architectures": {"of_numbers": "kinds_nets:of_numbers", "of_tokens": "kinds_nets:of_tokens"},
    }
    for pattern, tasks in {
        "reviews/*": ["reviews/text_cnn", "reviews/text_transformer", "reviews/of_tokens"],
        "points/*": ["points/mlp", "points/of_numbers"],
        "digits/of_*": ["digits/of_numbers"],
        "points/cnn": ["points/cnn"],  # an error comes from the network itself
    }.items():
        assert [one.name for one in resolve({**supplied, "tasks": [pattern]}).tasks] == tasks
    catalogue = Catalogue(supplied["datasets"], {}, None)
    assert (catalogue.suited("reviews"), catalogue.suited("points")) == ("text_cnn", "mlp")


def test_a_declared_image_size_is_used_before_the_data_are_read():
    pets = Catalogue({"pets": {"source": "no/such/folder", "image_size": 16}}, {}, None)
    assert pets.yields("pets") == Yields("images", side=16)
    why = "text_cnn reads tokens, and pets yields images of 16 or more pixels a side"
    with pytest.raises(WrongInput, match=why):
        matching("pets/text_cnn", pets)


def test_reading_a_plan_changes_no_registry_and_imports_no_code_that_no_task_uses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unused_nets.py").write_text("raise SystemExit('imported')")
    before = dict(DATASETS), dict(ARCHITECTURES)
    own = {"datasets": {"pets": "no/such/folder"}, "architectures": {"net": "unused_nets:net"}}
    assert [one.name for one in resolve({**own, "tasks": ["digits/mlp"]}).tasks] == ["digits/mlp"]
    assert before == (DATASETS, ARCHITECTURES)
    assert "unused_nets" not in sys.modules
