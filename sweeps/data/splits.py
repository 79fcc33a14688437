"""Splitting of examples into train, select, calibrate and test: stratified, from a fixed seed."""

import numpy as np

from sweeps.data.dataset import IGNORED, SPLITS, Array, RawData, SplitName
from sweeps.errors import WrongInput

POSITIONS = 4000
"""Labelled positions of sequences that *select*, *calibrate* and *test* keep each, drawn at random: the
logits of all would fill the memory.
"""


def thinned(labels: Array) -> Array:
    """Labels (example, position) of which POSITIONS are kept, the others IGNORED. Always the same ones."""
    places = np.flatnonzero(labels != IGNORED)
    left_out = np.random.default_rng(0).permutation(places)[POSITIONS:]
    kept = labels.copy()
    kept.flat[left_out] = IGNORED
    return kept


def split_rows(source: RawData, strata: Array) -> dict[SplitName, Array]:
    """The row numbers of each split, with the strata in equal shares."""
    examples = len(source.labels)
    end = examples - source.test - source.validation
    rest = np.arange(end)
    if source.validation:
        rows = {"train": rest} if source.test else stratify(rest, strata, {"train": 0.7, "test": 0.3})
        rows |= stratify(np.arange(end, end + source.validation), strata, {"select": 0.5, "calibrate": 0.5})
    elif source.test:
        rows = stratify(rest, strata, {"train": 10 / 12, "select": 1 / 12, "calibrate": 1 / 12})
    else:
        rows = stratify(rest, strata, {"train": 0.35, "select": 0.15, "calibrate": 0.15, "test": 0.35})
    if source.test:
        rows["test"] = np.arange(examples - source.test, examples)
    return {name: rows[name] for name in SPLITS}


def stratify(rows: Array, labels: Array, shares: dict[str, float]) -> dict[str, Array]:
    """Divide rows by shares that sum to 1, in each class alike, seeded. Row numbers come back in ascending
    order.
    """
    generator = np.random.default_rng(0)
    parts: dict[str, list[Array]] = {name: [] for name in shares}
    ends = np.cumsum(list(shares.values()))
    carry = generator.random()  # spreads the rounding over the classes, so that totals come out right
    for label in np.unique(labels[rows]):
        of_class = generator.permutation(rows[labels[rows] == label])
        cuts = np.floor(ends * len(of_class) + carry).astype(int).clip(0, len(of_class))
        carry = (carry + ends[0] * len(of_class)) % 1
        for name, part in zip(shares, np.split(of_class, cuts[:-1]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def check_classes(name: str, rows: dict[SplitName, Array], source: RawData) -> None:
    """Raise WrongInput where a split has fewer than 2 examples of a class."""
    for split, of_split in rows.items():
        counts = np.bincount(source.labels[of_split], minlength=len(source.classes))
        if counts.min() < 2:
            rare = int(counts.argmin())
            raise WrongInput(
                f"the {split} split of {name} has {counts[rare]} examples of class {source.classes[rare]!r};"
                " wanted at least 2 of each. Give more data, or a larger --train-examples."
            )
