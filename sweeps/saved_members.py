"""Saved members: predictions of networks that were trained elsewhere, found by (ε, seed), read and
checked.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal.audit.files import READERS, WrongFile, read
from sweeps.errors import WrongInput
from tracking.records.point import Point, key_of

Part = Literal["select", "calibrate", "validation", "test"]
PARTS: dict[str, Part] = {
    "select": "select",
    "calibrate": "calibrate",
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "holdout"), "test"),
}
"""Words that end a file's name, and the split that they mean."""
NUMBER = r"[=_-]?(\d+(?:\.\d+)?)"
EPSILON = re.compile(rf"(?:epsilon|eps|smoothing|ε){NUMBER}", re.IGNORECASE)
DROP = re.compile(rf"drop{NUMBER}", re.IGNORECASE)
SEED = re.compile(r"seed[=_-]?(\d+)", re.IGNORECASE)
HINT = (
    "name files or folders like eps0.1_seed3/validation.npz, or give a CSV with the columns epsilon, seed and"
    " validation (or select and calibrate) and test, which hold paths"
)


@dataclass(frozen=True)
class Member:
    """A network that was trained elsewhere: where it lies in the search space, and its files by split."""

    point: Point
    seed: int
    files: Mapping[Part, Path]

    def __str__(self) -> str:
        drop = f" until {self.point['drop']:g}" if "drop" in self.point else ""
        return f"ε = {self.point['epsilon']:g}{drop}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Collection:
    """Logits of members, for the seeds that every point has.

    Attributes:
        seeds: which those are, ascending.
        labels: of each split.
        points: by key, ε = 0 among them.
        logits: by key and split.
        missing: members that one point lacks and another has.
    """

    seeds: tuple[int, ...]
    labels: Mapping[Part, Int[Tensor, " example"]]
    points: Mapping[str, Point]
    logits: Mapping[str, Mapping[Part, Float[Tensor, "seed example class"]]]
    missing: tuple[str, ...]

    @property
    def control(self) -> str:
        """The key of ε = 0."""
        return next(key for key, point in self.points.items() if point["epsilon"] == 0)


def found(place: Path) -> list[Member]:
    """The members in a folder, by the names of files and folders, or those that a CSV lists. Errors:
    WrongInput where there is none, or a file does not name its ε, seed and split.
    """
    if place.is_file():
        members = listed(place)
    elif place.is_dir():
        members = named(place)
    else:
        raise WrongInput(f"--from is {str(place)!r}, which is neither a folder nor a file; {HINT}.")
    if not members:
        raise WrongInput(f"{place} holds no file of predictions ({', '.join(READERS)}); {HINT}.")
    return members


def named(folder: Path) -> list[Member]:
    """The members of a folder."""
    files: dict[tuple[float, float, int], dict[Part, Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in READERS or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        epsilon, seed, drop = EPSILON.search(name), SEED.search(name), DROP.search(name)
        word = re.split(r"[./_ -]", name)[-1].lower()
        if epsilon is None or seed is None or word not in PARTS:
            lacking = "ε" if epsilon is None else "a seed" if seed is None else "a split"
            raise WrongInput(f"{path} does not name {lacking}; {HINT}.")
        where = float(epsilon[1]), float(drop[1]) if drop else 1.0, int(seed[1])
        put(files.setdefault(where, {}), PARTS[word], path)
    return members_of(files)


def listed(manifest: Path) -> list[Member]:
    """The members in a CSV, whose paths are relative to its folder."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongInput(f"cannot read {manifest}: {error}") from error
    files: dict[tuple[float, float, int], dict[Part, Path]] = {}
    for number, row in enumerate(rows):
        try:
            where = float(row["epsilon"]), float(row.get("drop") or 1), int(row["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise WrongInput(f"{manifest}, row {number}: no epsilon and seed ({error}); {HINT}.") from error
        for word, part in PARTS.items():
            if row.get(word):
                put(files.setdefault(where, {}), part, manifest.parent / str(row[word]))
    return members_of(files)


def put(files: dict[Part, Path], part: Part, path: Path) -> None:
    """Note a file. Errors: WrongInput where the member has one of this split."""
    if part in files:
        raise WrongInput(f"{files[part]} and {path} are both {part} of one member; wanted one.")
    files[part] = path


def members_of(files: Mapping[tuple[float, float, int], Mapping[Part, Path]]) -> list[Member]:
    """Members by ε, drop and seed; a point has a `drop` where any falls to 0."""
    falling = any(drop != 1 for _, drop, _ in files)
    members = []
    for (epsilon, drop, seed), own in sorted(files.items()):
        if not 0 <= epsilon < 1 or not 0 < drop <= 1:
            raise WrongInput(
                f"{next(iter(own.values()))} says ε = {epsilon:g}, drop = {drop:g}; allowed are 0 <= ε < 1"
                " and 0 < drop <= 1."
            )
        point = {"epsilon": epsilon, **({"drop": drop if epsilon else 1.0} if falling else {})}
        members.append(Member(point, seed, own))
    return members


def collected(members: Sequence[Member]) -> Collection:
    """Logits of all members. Errors: WrongInput where a file is wrong, members do not have the same splits,
    labels or classes, ε = 0 is missing, or fewer than two seeds are common to all points.
    """
    by_point: dict[str, dict[int, Member]] = {}
    for member in members:
        by_point.setdefault(key_of(member.point), {})[member.seed] = member
    points = {key: next(iter(own.values())).point for key, own in by_point.items()}
    if not any(point["epsilon"] == 0 for point in points.values()) or len(points) < 2:
        tried = ", ".join(f"{point['epsilon']:g}" for point in points.values())
        raise WrongInput(f"there are members at ε = {tried}; wanted ε = 0 and at least one other.")
    first = members[0]
    for member in members:
        if member.files.keys() != first.files.keys():
            raise WrongInput(
                f"{member} has {', '.join(sorted(member.files))}, and {first} has"
                f" {', '.join(sorted(first.files))}; wanted the same splits in all."
            )
    if "test" not in first.files:
        raise WrongInput(f"{first} has {', '.join(sorted(first.files))} and no test; {HINT}.")
    every = sorted(set().union(*by_point.values()))
    common = tuple(seed for seed in every if all(seed in own for own in by_point.values()))
    missing = tuple(
        f"ε = {points[key]['epsilon']:g}, seed {seed}"
        for key, own in by_point.items()
        for seed in every
        if seed not in own
    )
    if len(common) < 2:
        raise WrongInput(
            f"{len(common)} seeds are common to all ε; wanted at least 2, as differences are paired by seed."
            f" Train: {'; '.join(missing[:8])}{' …' if len(missing) > 8 else ''}."
        )
    labels: dict[Part, Tensor] = {}
    logits: dict[str, dict[Part, list[Tensor]]] = {}
    classes = 0
    for key, own in by_point.items():
        for seed in common:
            for part, path in own[seed].files.items():
                values = opened(path, labels, part, first)
                classes = classes or values.shape[-1]
                if values.shape[-1] != classes:
                    raise WrongInput(f"{path} has {values.shape[-1]} classes, and {first} has {classes}.")
                logits.setdefault(key, {}).setdefault(part, []).append(values)
    stacked = {
        key: {part: torch.stack(rows) for part, rows in parts.items()} for key, parts in logits.items()
    }
    return Collection(common, labels, points, stacked, missing)


def opened(
    path: Path, labels: dict[Part, Tensor], part: Part, first: Member
) -> Float[Tensor, "example class"]:
    """The logits of a file, whose labels have to be those of the first member."""
    try:
        saved = read(path)
    except WrongFile as error:
        raise WrongInput(str(error)) from error
    predictions = saved.predictions
    if predictions.member:
        raise WrongInput(f"{path} holds {predictions.member[0]} models; wanted one file for each member.")
    own = predictions.labels
    known = labels.setdefault(part, own)
    if own.shape != known.shape:
        raise WrongInput(f"{path} has {len(own)} examples, and {first} has {len(known)} in {part}.")
    if bool((own != known).any()):
        row = int((own != known).nonzero()[0])
        raise WrongInput(
            f"{path}, row {row}: the label is {int(own[row])}, and that of {first} is {int(known[row])};"
            " wanted the same examples in the same order in all members."
        )
    return predictions.logits(slice(None))
