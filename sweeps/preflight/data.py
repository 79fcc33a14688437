"""Data: sizes, classes, repeated examples and odd numbers of a data set's four splits."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.data.dataset import IGNORED, SPLITS, Dataset, SplitName
from sweeps.data.load import CHUNK
from sweeps.data.readers.examples import listed
from sweeps.plan import Plan
from sweeps.preflight.finding import Finding, Level
from sweeps.protocol import pilot
from tracking.decision.power import Expected, count, rounded

SMALL_SPLIT = 100
"""Examples: ε and a temperature are chosen on fewer only roughly."""
UNEQUAL = 10
"""The commonest class has so many times more examples than the rarest."""
LEAKED = 0.02
"""Of *test* in *train* misleads."""
FAR = 30.0
"""Standard deviations from the mean."""


def findings(dataset: Dataset, plan: Plan) -> list[Finding]:
    """All that is found, for a sweep as planned."""
    found = [Finding("note", "read", note) for note in dataset.notes]
    found += sizes(dataset)
    if not dataset.sequences:
        found += [classes(dataset), *repeated(dataset), smallest_gain(pilot.expected(plan, dataset))]
    if not dataset.vocabulary:
        found += numbers(dataset)
    return found


def sizes(dataset: Dataset) -> Iterator[Finding]:
    """How many examples each split has."""
    counts = {name: len(split.labels) for name, split in dataset.splits.items()}
    each = ", ".join(f"{name} {count}" for name, count in counts.items())
    kind = "tokens" if dataset.vocabulary else "numbers"
    shape = "×".join(str(size) for size in dataset.shape) or "1"
    words = f", of {len(dataset.vocabulary)} different ones" if dataset.vocabulary else ""
    yield Finding("fine", "examples", f"{each}; each is {shape} {kind}{words}")
    small = [
        f"{name} has {count}" for name, count in counts.items() if name != "train" and count < SMALL_SPLIT
    ]
    if small:
        yield Finding(
            "doubt",
            "small splits",
            f"{' and '.join(small)} examples: estimates there are rough. Add more examples if you can",
        )


def classes(dataset: Dataset) -> Finding:
    """How even the classes are."""
    counts = torch.bincount(dataset.splits["train"].labels, minlength=len(dataset.classes))
    rare, common = int(counts.argmin()), int(counts.argmax())
    share = int(counts[common]) / int(counts.sum())
    if counts[rare] * UNEQUAL < counts[common]:
        text = (
            f"{len(dataset.classes)}, uneven: {dataset.classes[common]!r} has {counts[common]} training"
            f" examples, {dataset.classes[rare]!r} {counts[rare]}. Always saying {dataset.classes[common]!r}"
            f" is {share:.1%} right; look at the accuracy of the worst class too"
        )
        return Finding("doubt", "classes", text)
    return Finding(
        "fine",
        "classes",
        f"{len(dataset.classes)}, with {counts[rare]} to {counts[common]} training examples each",
    )


def fingerprints(dataset: Dataset, name: SplitName) -> list[bytes]:
    """A hash of each example: of its text where it has one, else of its numbers."""
    split = dataset.splits[name]
    if split.shown and dataset.vocabulary:
        return [
            hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()
            for text in split.shown
        ]
    found = []
    for first in range(0, len(split.labels), CHUNK):
        rows = torch.arange(first, min(first + CHUNK, len(split.labels)))
        found += [
            hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest()
            for one in split.take(rows).numpy()
        ]
    return found


def repeated(dataset: Dataset) -> Iterator[Finding]:
    """Examples that are in two splits, twice in *train*, or have different labels."""
    marks = {name: fingerprints(dataset, name) for name in SPLITS}
    train = set(marks["train"])
    clean = True
    for name in SPLITS[1:]:
        same = sum(mark in train for mark in marks[name])
        if same:
            clean = False
            share = same / len(marks[name])
            level: Level = "wrong" if share > LEAKED and name == "test" else "doubt"
            text = (
                f"{same} of {len(marks[name])} examples of {name} ({share:.1%}) are in train too: what is"
                " measured there is too good. Remove them"
            )
            yield Finding(level, "leakage", text + few_values(dataset))
    inside = len(marks["train"]) - len(train)
    if inside:
        clean = False
        yield Finding(
            "doubt",
            "duplicates",
            f"{inside} of {len(marks['train'])} training examples repeat another one{few_values(dataset)}",
        )
    labels: dict[bytes, set[int]] = {}
    for name in SPLITS:
        for mark, label in zip(marks[name], dataset.splits[name].labels.tolist(), strict=True):
            labels.setdefault(mark, set()).add(label)
    torn = sum(len(own) > 1 for own in labels.values())
    if torn:
        clean = False
        yield Finding(
            "doubt",
            "labels",
            f"{torn} inputs occur with different labels: labels are noisy, or inputs lack the features that"
            " distinguish them",
        )
    if clean:
        yield Finding("fine", "duplicates", "no example is in two splits, or twice in train")


def few_values(dataset: Dataset) -> str:
    """A word of caution where equal numbers may be different examples."""
    return (
        " (rows of few columns may be equal and yet different examples)"
        if len(dataset.shape) == 1 and dataset.shape[0] < 20
        else ""
    )


def smallest_gain(expected: Expected) -> Finding:
    """Smallest gain in accuracy that *test* could show, by the calculation of the sweep's pilot."""
    low, high = expected.detectable
    asked = f"--effect {100 * expected.effect:g}"
    if low > expected.effect:
        takes = (
            "more than any number of them"
            if expected.examples_needed is None
            else f"{count(rounded(expected.examples_needed))} of them or more"
        )
        return Finding("doubt", "test", f"{expected.sentence}. {asked} would take {takes}")
    if high > expected.effect:
        return Finding("fine", "test", f"{expected.sentence}. {asked} lies within this range")
    return Finding("fine", "test", f"{expected.sentence}. That covers {asked}")


def numbers(dataset: Dataset) -> Iterator[Finding]:
    """Numbers that are not finite, do not vary, or lie far out."""
    stored = dataset.splits["train"].inputs
    for name in SPLITS:
        values = dataset.splits[name].inputs
        if values.is_floating_point() and not values.isfinite().all():
            yield Finding(
                "wrong", "numbers", f"{int((~values.isfinite()).sum())} inputs of {name} are NaN or infinite"
            )
            return
    if len(dataset.shape) != 1:
        flat = stored.reshape(len(stored), -1)
        alike = int((flat == flat[:, :1]).all(1).sum())
        if alike > len(flat) / 100:
            yield Finding(
                "doubt",
                "numbers",
                f"{alike} of {len(flat)} training examples have one number throughout: empty pictures?",
            )
        low, high = (float(value) for value in stored.aminmax())
        yield Finding(
            "fine",
            "numbers",
            f"from {low:g} to {high:g}; the network sees them with mean 0 and deviation 1, for each channel",
        )
        return
    prepared: Float[Tensor, "example feature"] = dataset.prepare(stored)
    names = dataset.features or [f"number {index + 1}" for index in range(dataset.shape[0])]
    constant = [names[index] for index in (prepared.amax(0) == prepared.amin(0)).nonzero().flatten()]
    if constant:
        yield Finding(
            "doubt",
            "features",
            f"{len(constant)} of {len(names)} never vary in train and carry no information:"
            f" {listed(constant, 5)}",
        )
    far = prepared.abs().amax(0)
    out = [f"{names[index]} ({far[index]:.0f})" for index in far.argsort(descending=True) if far[index] > FAR]
    if out:
        text = (
            f"{len(out)} have values more than {FAR:g} deviations from their mean: {listed(out, 5)}. Take"
            " logarithms, or cap them"
        )
        yield Finding("doubt", "features", text)
    telling = [names[index] for index in perfect(prepared, dataset.splits["train"].labels)]
    if telling:
        text = (
            f"{listed(telling, 5)} alone determines the class of every training example: is it made from the"
            " label?"
        )
        yield Finding("doubt", "features", text)
    if not (constant or out or telling):
        yield Finding("fine", "features", f"{len(names)}; the network sees each with mean 0 and deviation 1")


def perfect(features: Float[Tensor, "example feature"], labels: Tensor) -> Sequence[int]:
    """Features of which each value, shared by ten examples on average, belongs to one class."""
    found = []
    for index, column in enumerate(features.T):
        values, groups = torch.unique(column, return_inverse=True)
        if 1 < len(values) <= len(column) / 10 and labels[labels != IGNORED].numel():
            pairs = torch.unique(torch.stack([groups, labels], 1), dim=0)
            if len(pairs) == len(values):
                found.append(index)
    return found
