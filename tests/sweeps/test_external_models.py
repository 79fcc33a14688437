"""Models of timm and of transformers, built from a configuration: nothing is fetched."""

import json
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import RawData
from sweeps.data.load import load
from sweeps.data.readers import hub
from sweeps.errors import WrongInput
from sweeps.models.external import architecture_of
from sweeps.training.population import initialised

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
WORDS = ["the", "storm", "goal", "bank", "vote", "song", "##s", "a"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def images(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 3, 32, 32), np.uint8)
    source = RawData(pixels, np.arange(80) % 4, ("a", "b", "c", "d"), 0, "here")
    monkeypatch.setitem(DATASETS, "made", lambda _: source)
    return load("made")


def texts(monkeypatch, tokenizer=None):
    words = np.random.default_rng(0).choice(WORDS[1:6], (80, 6))
    lines = np.array([" ".join(["the", *line]) for line in words], object)
    source = RawData(lines, np.arange(80) % 4, ("a", "b", "c", "d"), 0, "here")
    if tokenizer:
        ids, vocabulary = hub.tokenised(lines, tokenizer, 256)
        source = RawData(ids, source.labels, source.classes, 0, "here", vocabulary=vocabulary)
    monkeypatch.setitem(DATASETS, "made", lambda _: source)
    return load("made")


def logits(network, dataset, seed=0):
    module = initialised(partial(network.module, dataset), seed)
    with torch.no_grad():
        return module.eval()(dataset.prepare(dataset.splits["train"].take(torch.arange(5))))


@pytest.mark.parametrize("model", ["resnet10t", "vit_tiny_patch16_224"])
def test_models_of_timm(monkeypatch, model):
    pytest.importorskip("timm", exc_type=ImportError)
    pictures = architecture_of("pictures", f"timm:{model}:fresh")
    found = logits(pictures, images(monkeypatch))
    assert found.shape == (5, 4)
    assert not pictures.recipes
    tuned = architecture_of("tuned", f"timm:{model}")
    assert tuned.recipes["*"].learning_rate <= 1e-4


def test_an_unknown_model_of_timm_is_refused_with_names_like_it():
    pytest.importorskip("timm", exc_type=ImportError)
    with pytest.raises(WrongInput, match=r"timm has no model 'resnet19t'\. Did you mean resnet"):
        architecture_of("pictures", "timm:resnet19t")


def bert(folder, padding):
    """A tiny text model with its tokenizer, in a folder."""
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    from tokenizers import Tokenizer, models, pre_tokenizers

    marks = ["[UNK]", "[PAD]"] if padding else ["[PAD]", "[UNK]"]
    vocabulary = {word: index for index, word in enumerate([*marks, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marked = {"tokenizer_object": tokenizer, "unk_token": "[UNK]", "pad_token": "[PAD]"}
    transformers.PreTrainedTokenizerFast(**marked).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=len(vocabulary), pad_token_id=padding, **TINY)
    torch.manual_seed(3)
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return model, config


@pytest.mark.parametrize("padding", [0, 1])
def test_a_text_model_with_its_weights_sees_the_tokens_of_its_own_tokenizer(monkeypatch, padding):
    model, _ = bert("bert", padding)
    network = architecture_of("bert", "hf:bert")
    with pytest.raises(ValueError, match="give the data with --tokenizer hf:bert"):
        logits(network, texts(monkeypatch))
    dataset = texts(monkeypatch, "bert")
    module = initialised(partial(network.module, dataset), 0)
    own, given = (one.bert.embeddings.word_embeddings.weight for one in (module.model, model))
    assert torch.equal(own, given)
    tokens = dataset.splits["train"].take(torch.arange(5)).long()
    ours = module.eval()(tokens)
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained("bert")
    words = [
        " ".join(dataset.vocabulary[token] for token in row if token != 0).replace(" ##", "")
        for row in tokens.tolist()
    ]
    theirs = module.model(**tokenizer(words, return_tensors="pt", padding=True)).logits
    torch.testing.assert_close(ours, theirs)
    assert network.recipes["*"].learning_rate == 5e-5


def test_models_of_transformers_from_a_configuration(monkeypatch):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    _, config = bert("bert", 0)
    vit = transformers.ViTConfig(image_size=224, patch_size=8, **TINY)
    for kind, own in (("bert", config), ("vit", vit)):
        Path(f"{kind}.json").write_text(json.dumps({**own.to_dict(), "model_type": kind}))
    text, image = architecture_of("text", "hf:bert.json"), architecture_of("image", "hf:vit.json")
    words = texts(monkeypatch)
    assert logits(text, words).shape == (5, 4)
    assert not torch.equal(logits(text, words, 0), logits(text, words, 1))
    assert logits(image, images(monkeypatch)).shape == (5, 4)


def test_padding_changes_nothing(monkeypatch):
    bert("bert", 1)
    network = architecture_of("bert", "hf:bert")
    dataset = texts(monkeypatch, "bert")
    module = initialised(partial(network.module, dataset), 0).eval()
    tokens = dataset.splits["train"].take(torch.arange(5)).long()
    torch.testing.assert_close(module(torch.nn.functional.pad(tokens, (0, 4))), module(tokens))


@pytest.mark.parametrize("spec", ["hf:nobody/nothing", "hf:nowhere/config.json"])
def test_a_model_that_cannot_be_fetched_is_refused_with_the_folder_to_copy(spec):
    pytest.importorskip("transformers", exc_type=ImportError)
    with pytest.raises(WrongInput, match="copy the model's folder"):
        architecture_of("text", spec)


def test_a_data_set_of_hugging_face(monkeypatch, tmp_path):
    """The package `datasets` reads a folder here as it would one of the hub."""
    pytest.importorskip("datasets", exc_type=ImportError)
    from sweeps.data.readers.spec import Columns
    from sweeps.data.user_dataset import UserDataset

    (tmp_path / "some").mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for part, count in (("train", 60), ("test", 20)):
        rows = [f"{row},{'ab'[row % 2]}" for row in range(count)]
        (tmp_path / "some" / f"{part}.csv").write_text("\n".join(["x,label", *rows]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = UserDataset("some", Columns(f"hf:{tmp_path}/some"))(None)
    assert (source.test, source.classes) == (20, ("a", "b"))
    with pytest.raises(WrongInput, match="cannot be had"):
        UserDataset("some", Columns("hf:nobody/nothing"))(None)


def test_a_missing_package_is_named(monkeypatch):
    for package in ("transformers", "timm", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)  # as Python itself marks what cannot be imported
    for spec, package in (("timm:resnet18", r"lscal\[timm\]"), ("hf:bert", r"lscal\[hf\]")):
        with pytest.raises(WrongInput, match=package):
            architecture_of("one", spec)
