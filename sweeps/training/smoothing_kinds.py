"""Smoothing kinds: the distributions that receive the mass ε.

A name is `kind`, `kind:FILE` or either with `@schedule`: `uniform`, `table:likely.npy`, `online@decay`. Files
hold numbers, as .npy or as .csv without a header. A kind is a function here with the decorator `kind`, or a
distribution registered in `lscal.smoothing`.

With `@drop` ε falls to 0 at once after a share of the training, which is tuned beside ε: in 0.1 to 0.6, in
LOW to HIGH with `@drop:LOW-HIGH`, and not at all with `@drop:SHARE`.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lscal import DISTRIBUTIONS
from lscal.smoothing import SUM_TOLERANCE, Noise
from lscal.smoothing import similarity as from_similarities
from lscal.smoothing import table as checked
from sweeps.data.dataset import Dataset
from sweeps.errors import WrongInput, unknown

SUFFIXES = (".npy", ".csv")
LossName = Literal["cross_entropy", "margin", "confidence_penalty"]
ScheduleName = Literal["constant", "decay", "warm_up"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
DROP = "drop"
DROPS = (0.1, 0.6)
"""The shares of the training after which ε falls to 0 that are tried, where none are given."""
STRENGTHS = ("margin", "confidence_penalty")
"""Kinds of which ε is the strength of another loss, and no mass."""
LARGEST = 2048
"""Classes up to which a kind makes K numbers for each of K classes by itself."""
SAMPLE, OF_EACH, FOLDS = 2000, 20, 5
"""How many examples, or else examples of each class, and folds the classifier takes whose confusions tell
which classes are alike.
"""
TEACHER_TEMPERATURE = 4.0
"""Divides a teacher's logits: of examples it was trained on, it is far too sure."""
DEFAULT_CHOICE = ("uniform", "class_prior", "online")
"""What is tried where the smoothing is tuned and no names are given."""

Numbers = Float[Tensor, "*any"]


@dataclass(frozen=True)
class SmoothingNoise:
    """What the members that name a smoothing are trained with.

    Attributes:
        table: u over the classes, or one for each label with the label's in its row.
        examples: a u for each example of *train*, in place of the table.
        loss: what ε is the strength of.
        online: each member makes its own table while it is trained; `table` is only its first one.
        schedule: how ε moves.
    """

    table: Noise
    examples: Float[Tensor, "example class"] | None = None
    loss: LossName = "cross_entropy"
    online: bool = False
    schedule: ScheduleName = "constant"

    @property
    def uniform(self) -> bool:
        """Whether the table gives all classes the same."""
        return torch.allclose(self.table, self.table.mean())

    def to(self, device: torch.device) -> "SmoothingNoise":
        """The same on a device."""
        return replace(
            self,
            table=self.table.to(device),
            examples=None if self.examples is None else self.examples.to(device),
        )

    def __str__(self) -> str:
        numbers = self.table if self.examples is None else self.examples
        digest = hashlib.sha256(numbers.double().cpu().numpy().tobytes()).hexdigest()[:8]
        return f"{digest} {self.loss} {self.schedule}{' online' if self.online else ''}"


Teach = Callable[[], Numbers]
"""Gives a teacher's logits of *train*."""
Make = Callable[[Dataset, Numbers | None, Teach], SmoothingNoise]
"""Makes what members need, from the data set, the file's numbers, and a teacher where it wants one."""


@dataclass(frozen=True)
class SmoothingKind:
    """A kind of smoothing: how it is made, whether its name has a file, and whether it is trained
    beforehand.
    """

    make: Make
    file: Literal["none", "may", "must"]


KINDS: dict[str, SmoothingKind] = {}


def kind(file: Literal["none", "may", "must"] = "none") -> Callable[[Make], Make]:
    """Register a kind under the function's name."""

    def register(make: Make) -> Make:
        KINDS[make.__name__] = SmoothingKind(make, file)
        return make

    return register


# ---- kinds
# --------------------------------------------------------------------------------------------------


@kind("may")
def similarity(dataset: Dataset, numbers: Numbers | None, _: Teach) -> SmoothingNoise:
    """Wrong classes that are like the label: softmax of given similarities (K, K), or of log(1 + how often a
    simple classifier takes one for the other).
    """
    if numbers is None:
        check_table(dataset, "similarity")
        numbers = (confusions(dataset) + 1).log()
    classes = len(dataset.classes)
    if numbers.shape != (classes, classes):
        raise WrongInput(
            f"similarities have shape {tuple(numbers.shape)}; wanted ({classes}, {classes}), as"
            f" {dataset.name} has classes."
        )
    return SmoothingNoise(from_similarities(numbers.double().fill_diagonal_(-torch.inf), 1.0))


@kind("must")
def table(dataset: Dataset, numbers: Numbers | None, _: Teach) -> SmoothingNoise:
    """A given u: K numbers, or K rows of them, the label's in its row."""
    assert numbers is not None
    return SmoothingNoise(checked_table(dataset, numbers))


@kind("must")
def per_class(dataset: Dataset, numbers: Numbers | None, _: Teach) -> SmoothingNoise:
    """Uniform, with an ε of its own for each class: ε times the K given weights, 0 to 1."""
    assert numbers is not None
    classes = len(dataset.classes)
    weights = numbers.flatten().double()
    if len(weights) != classes or not ((weights >= 0) & (weights <= 1)).all():
        raise WrongInput(
            f"weights per class have shape {tuple(numbers.shape)} and lie in {span(numbers)}; wanted"
            f" {classes} of 0 to 1."
        )
    # (1 - εw)·onehot + εw/K is (1 - ε)·onehot + ε·(w/K + (1 - w)·onehot)
    return SmoothingNoise((weights / classes).unsqueeze(1) + torch.diag(1 - weights))


@kind()
def human(dataset: Dataset, _: Numbers | None, __: Teach) -> SmoothingNoise:
    """How people label each example; the label alone where nobody was asked."""
    check_examples(dataset, "human")
    split = dataset.splits["train"]
    if split.human is None:
        raise WrongInput(
            f"{dataset.name} does not know how people label its examples; smoothing human needs that. Use"
            " examples:FILE or uniform."
        )
    asked = split.human.double()
    onehot = torch.nn.functional.one_hot(split.labels.cpu(), len(dataset.classes)).double()
    return per_example(dataset, torch.where(asked.isnan().any(1, keepdim=True), onehot, asked))


@kind("must")
def examples(dataset: Dataset, numbers: Numbers | None, _: Teach) -> SmoothingNoise:
    """A given u for each example: a row of K numbers for each row of *train*, in its stored order."""
    assert numbers is not None
    check_examples(dataset, "examples")
    return per_example(dataset, numbers)


@kind("may")
def teacher(dataset: Dataset, numbers: Numbers | None, teach: Teach) -> SmoothingNoise:
    """Predictions of a model trained before: softmax(logits / 4), from given logits of *train* or
    from a model of this task at ε = 0.
    """
    check_examples(dataset, "teacher")
    logits = teach() if numbers is None else numbers
    if logits.shape != (len(dataset.splits["train"].labels), len(dataset.classes)):
        raise wrong_rows(dataset, logits)
    return per_example(dataset, (logits.double() / TEACHER_TEMPERATURE).softmax(-1))


@kind()
def online(dataset: Dataset, _: Numbers | None, __: Teach) -> SmoothingNoise:
    """What the member itself predicted for examples of the class that it got right, mean over the epoch
    before; see `sweeps.training.online_smoothing`.
    """
    check_table(dataset, "online")
    return replace(uniform_over(dataset), online=True)


@kind()
def margin(dataset: Dataset, _: Numbers | None, __: Teach) -> SmoothingNoise:
    """Another loss: only logits more than 10 below the largest are pulled up, with strength ε."""
    return replace(uniform_over(dataset), loss="margin")


@kind()
def confidence_penalty(dataset: Dataset, _: Numbers | None, __: Teach) -> SmoothingNoise:
    """Another loss: cross entropy less ε times the entropy of the prediction."""
    return replace(uniform_over(dataset), loss="confidence_penalty")


# ---- names
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """A smoothing's name in its parts.

    Attributes:
        base: the name without a drop: all that a member's table depends on.
        drops: the lowest and the highest share of the training after which ε is 0; both 1 where it never is.
    """

    kind: str
    file: str | None
    schedule: ScheduleName
    base: str
    drops: tuple[float, float] = (1.0, 1.0)


def parsed(name: str) -> Name:
    """The parts of a name. Errors: WrongInput for one that is not allowed; a file is not looked at."""
    rest, at, after = name.rpartition("@")
    schedule: ScheduleName = "constant"
    base, drops = name, (1.0, 1.0)
    if not at or name.endswith(SUFFIXES):
        rest = name
    elif after.partition(":")[0] == DROP:
        base, drops = rest, drops_of(name, after)
    elif after in SCHEDULES:
        schedule = next(one for one in SCHEDULES if one == after)
    else:
        raise unknown("schedule of ε", after, (*SCHEDULES, DROP))
    kind_of, colon, file = rest.partition(":")
    if kind_of not in KINDS and kind_of not in DISTRIBUTIONS:
        raise unknown("smoothing", kind_of, {*KINDS, *DISTRIBUTIONS})
    wants = KINDS[kind_of].file if kind_of in KINDS else "none"
    if wants == "must" and not file:
        raise WrongInput(
            f"smoothing {kind_of} needs a file; wanted {kind_of}:FILE.npy or {kind_of}:FILE.csv."
        )
    if wants == "none" and colon:
        raise WrongInput(f"smoothing {kind_of} takes no file, but {name!r} names one; wanted {kind_of}.")
    if colon and not file.endswith(SUFFIXES):
        raise WrongInput(
            f"the file of smoothing {name!r} is {file!r}; allowed are .npy, and .csv of numbers without a"
            " header."
        )
    return Name(kind_of, file or None, schedule, base, drops)


def drops_of(name: str, text: str) -> tuple[float, float]:
    """The shares in `drop`, `drop:SHARE` or `drop:LOW-HIGH`. Errors: WrongInput."""
    _, colon, shares = text.partition(":")
    try:
        found = [float(share) for share in shares.split("-")] if colon else [*DROPS]
    except ValueError:
        found = []
    low, high = (found[0], found[-1]) if len(found) in (1, 2) else (0.0, 0.0)
    if not 0 < low <= high < 1:
        raise WrongInput(
            f"smoothing {name!r} drops ε after {shares!r} of the training; allowed are @drop, @drop:SHARE and"
            " @drop:LOW-HIGH, shares between 0 and 1, such as @drop:0.3."
        )
    return low, high


def bases(names: Iterable[str]) -> tuple[str, ...]:
    """The smoothings that names come to apart from when ε falls to 0, each once."""
    return tuple(dict.fromkeys(parsed(name).base for name in names))


def dropping(names: Iterable[str]) -> bool:
    """Whether any of the names lets ε fall to 0."""
    return any(parsed(name).drops != (1.0, 1.0) for name in names)


def digests(names: Iterable[str]) -> dict[str, str]:
    """For each name with a file, a digest of what the file holds. Errors: WrongInput where it cannot be
    read.
    """
    found = {}
    for name in names:
        if file := parsed(name).file:
            try:
                found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
            except OSError as error:
                raise unreadable(file, error.strerror) from error
    return found


def noise_of(name: str, dataset: Dataset, teach: Teach) -> SmoothingNoise:
    """What members that name this smoothing need, for a data set. Errors: WrongInput where the data set does
    not have it, or its file does not fit.
    """
    parts = parsed(name)
    numbers = None if parts.file is None else read(parts.file)
    if parts.kind in KINDS:
        found = KINDS[parts.kind].make(dataset, numbers, teach)
    else:
        made = DISTRIBUTIONS[parts.kind](dataset.splits["train"].targets, len(dataset.classes))
        found = SmoothingNoise(checked_table(dataset, made))
    return replace(found, schedule=parts.schedule)


def at_strength(schedule: ScheduleName, share: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What ε is multiplied by when this share of the training is past: `decay` falls from 1 to 0, `warm_up`
    rises to 1 over the first half.
    """
    match schedule:
        case "decay":
            return 1 - share
        case "warm_up":
            return (2 * share).clamp(max=1)
        case _:
            return torch.ones_like(share)


# ---- parts of kinds
# --------------------------------------------------------------------------------------------------


def read(file: str) -> Numbers:
    """The numbers of a file. Errors: WrongInput where there is none, or it holds something else."""
    try:
        found = (
            np.load(file, allow_pickle=False)
            if file.endswith(".npy")
            else np.loadtxt(file, delimiter=",", ndmin=1)
        )
        numbers = torch.from_numpy(np.asarray(found, dtype=np.float64))
    except OSError as error:
        raise unreadable(file, error.strerror or "it is no .npy file") from error
    except (ValueError, TypeError, EOFError) as error:
        raise unreadable(file, f"it holds something else than numbers ({error})") from error
    if numbers.ndim not in (1, 2) or not numbers.numel():
        raise unreadable(file, f"its numbers have shape {tuple(numbers.shape)}; wanted one or two dimensions")
    return numbers


def unreadable(file: str, why: str | None) -> WrongInput:
    """The error for a file that cannot be used."""
    return WrongInput(
        f"cannot read the file {file!r} of a smoothing: {why}. Wanted .npy, or .csv of numbers without a"
        " header."
    )


def uniform_over(dataset: Dataset) -> SmoothingNoise:
    """The same for all classes."""
    return SmoothingNoise(torch.full((len(dataset.classes),), 1 / len(dataset.classes), dtype=torch.float64))


def checked_table(dataset: Dataset, numbers: Tensor) -> Noise:
    """u as `lscal.smoothing.table` wants it, over this data set's classes."""
    try:
        found = checked(numbers)
    except ValueError as error:
        raise WrongInput(f"{error}.") from error
    if found.shape[-1] != len(dataset.classes):
        raise WrongInput(
            f"the table is over {found.shape[-1]} classes; {dataset.name} has {len(dataset.classes)}."
        )
    return found


def per_example(dataset: Dataset, rows: Numbers) -> SmoothingNoise:
    """A u for each example of *train*, checked."""
    if rows.shape != (len(dataset.splits["train"].labels), len(dataset.classes)):
        raise wrong_rows(dataset, rows)
    sums = rows.sum(1)
    wrong = ~((rows >= 0).all(1) & ((sums - 1).abs() <= SUM_TOLERANCE))
    if wrong.any():
        place = int(wrong.nonzero()[0])
        raise WrongInput(
            f"row {place} of the distributions per example lies in {span(rows[place])} and sums to"
            f" {float(sums[place]):.6g}; wanted numbers of at least 0 which sum to 1."
        )
    return replace(uniform_over(dataset), examples=rows.float())


def wrong_rows(dataset: Dataset, rows: Tensor) -> WrongInput:
    """The error for numbers that are not a row for each example."""
    wanted = (len(dataset.splits["train"].labels), len(dataset.classes))
    return WrongInput(
        f"the rows per example have shape {tuple(rows.shape)}; wanted {wanted}: a row for each training"
        f" example of {dataset.name}, in the order "
        f'of load("{dataset.name}").splits["train"] of sweeps.data.load, and a column for each class.'
    )


def span(numbers: Tensor) -> str:
    """The range of some numbers."""
    return f"{float(numbers.min()):g} to {float(numbers.max()):g}"


def check_examples(dataset: Dataset, name: str) -> None:
    """Raise WrongInput where examples have more than one label."""
    if dataset.splits["train"].labels.ndim != 1:
        raise WrongInput(
            f"smoothing {name} has a distribution for each example; those of {dataset.name} are sequences of"
            " labels. Use uniform."
        )


def check_table(dataset: Dataset, name: str) -> None:
    """Raise WrongInput where there are too many classes for a number for each pair of them."""
    if len(dataset.classes) > LARGEST:
        raise WrongInput(
            f"smoothing {name} has a number for each pair of classes; {dataset.name} has"
            f" {len(dataset.classes)}, allowed are {LARGEST}."
        )


def confusions(dataset: Dataset) -> Numbers:
    """How often a ridge classifier takes an example of the row's class for the column's, out of fold: on a
    sample of *train*, of the standardised inputs, or of the counts of words. Classes with fewer examples in
    it than there are folds are never taken for another.
    """
    check_examples(dataset, "similarity")
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    split, classes = dataset.splits["train"], len(dataset.classes)
    all_labels = split.labels.cpu().numpy()
    rows = np.sort(np.random.default_rng(0).permutation(len(all_labels))[: max(SAMPLE, OF_EACH * classes)])
    rows = rows[np.bincount(all_labels[rows], minlength=classes)[all_labels[rows]] >= FOLDS]
    labels = all_labels[rows]
    if len(np.unique(labels)) < 2:
        return torch.zeros(classes, classes)
    inputs = dataset.prepare(split.take(torch.from_numpy(rows).to(split.stored.device))).flatten(1).cpu()
    if dataset.vocabulary:
        counts = torch.zeros(len(rows), len(dataset.vocabulary))
        inputs = counts.scatter_add_(1, inputs, (inputs != 0).float())
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=len(rows)))
    found = cross_val_predict(
        classifier, inputs.numpy(), labels, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    )
    return torch.from_numpy(confusion_matrix(labels, found, labels=range(classes))).double()
