"""Decide on saved members: the recommendation from predictions of networks that were trained elsewhere.

What a sweep keeps apart is kept apart as far as the files allow: ε is chosen on *select*, recalibrated on
*calibrate* and judged on *test*; where seeds are many, it is chosen with half of them and judged with the
others. What cannot be kept apart is told.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime

import torch
from jaxtyping import Int
from torch import Tensor

from sweeps.data.dataset import Dataset, Split, SplitName
from sweeps.errors import WrongInput
from sweeps.protocol.confirm import Confirmation
from sweeps.saved_members import Collection, Part
from sweeps.scoring import Logits, measure
from tracking.decision.decide import decide
from tracking.decision.from_outcomes import nearest
from tracking.decision.policies import constant_ahead, ties
from tracking.decision.recommend import Source
from tracking.decision.screening import Screening
from tracking.decision.terms import Terms
from tracking.records.evidence import Evidence
from tracking.records.outcome import Outcome, Stage
from tracking.records.point import key_of

ENOUGH = 8
"""Seeds from which on ε is chosen with one half of them and judged with the other."""
LEAST_EXAMPLES = 20
"""Examples of each split that a decision needs at least."""


def decided(collection: Collection, task: str, terms: Terms) -> Evidence:
    """The evidence of a decision on saved members; its notes are what a reader has to know of how it was
    reached.

    Errors: WrongInput where a split has fewer than 20 examples.
    """
    rows, notes = divided(collection)
    for split, (_, places) in rows.items():
        if len(places) < LEAST_EXAMPLES:
            raise WrongInput(
                f"{len(places)} examples are left for {split}; wanted at least {LEAST_EXAMPLES}."
            )
    dataset = dataset_of(collection, rows, task)
    seeds, first = collection.seeds, len(collection.seeds) // 2
    if len(seeds) >= ENOUGH:
        choosing, judging = slice(0, first), slice(first, None)
    else:
        choosing = judging = slice(None)
        notes.append(
            f"ε is chosen and judged with the same {len(seeds)} seeds, so their luck is in the gain; with"
            f" {ENOUGH} or more, half of them choose and half judge."
        )
    if collection.missing:
        notes.append(f"Left out, as not all ε have these seeds. Train: {'; '.join(collection.missing)}.")
    screened = outcomes_of(collection, rows, dataset, "screen", choosing, task)
    confirmed = outcomes_of(collection, rows, dataset, "confirm", judging, task)
    return replace(evidence_of(collection, dataset, screened, confirmed, task, terms), notes=tuple(notes))


def divided(collection: Collection) -> tuple[dict[SplitName, tuple[Part, Int[Tensor, " row"]]], list[str]]:
    """For each split of a decision, which saved split it is taken from and which rows; and what was done."""
    sizes = {part: len(labels) for part, labels in collection.labels.items()}

    def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return order[: len(rows) // 2].sort().values, order[len(rows) // 2 :].sort().values

    every = {part: torch.arange(size) for part, size in sizes.items()}
    if {"select", "calibrate"} <= sizes.keys():
        parts: tuple[Part, ...] = ("select", "calibrate", "test")
        return {part: (part, every[part]) for part in parts}, []  # type: ignore[misc]
    if "validation" in sizes or "select" in sizes:
        whole: Part = "validation" if "validation" in sizes else "select"
        first, second = halves(every[whole])
        note = (
            f"{whole} is halved by a fixed rule: {len(first)} examples choose ε, {len(second)} recalibrate."
        )
        return {"select": (whole, first), "calibrate": (whole, second), "test": ("test", every["test"])}, [
            note
        ]
    chosen, judged = halves(every["test"])
    first, second = halves(chosen)
    note = (
        f"There is no validation, so test is divided by a fixed rule: {len(first)} examples choose ε,"
        f" {len(second)} recalibrate, {len(judged)} judge."
    )
    return {"select": ("test", first), "calibrate": ("test", second), "test": ("test", judged)}, [note]


Rows = Mapping[SplitName, tuple[Part, Int[Tensor, " row"]]]


def dataset_of(collection: Collection, rows: Rows, task: str) -> Dataset:
    """The labels as a data set without inputs."""
    splits = {}
    for split, (part, places) in rows.items():
        labels = collection.labels[part][places]
        splits[split] = Split(torch.zeros(len(labels), 1), labels)
    classes = next(iter(next(iter(collection.logits.values())).values())).shape[-1]
    names = tuple(str(number) for number in range(classes))
    return Dataset(task, splits, names, (0.0,), (1.0,), "saved", "saved predictions")


def outcomes_of(
    collection: Collection, rows: Rows, dataset: Dataset, stage: Stage, seeds: slice, task: str
) -> dict[str, tuple[Outcome, Logits]]:
    """Each point as a trial of a stage, with its logits."""
    found: dict[str, tuple[Outcome, Logits]] = {}
    for number, (key, parts) in enumerate(collection.logits.items()):
        logits: Logits = {split: parts[part][seeds][:, places] for split, (part, places) in rows.items()}
        metrics, temperature, bins, risks, _ = measure(stage, dataset, logits)
        point = collection.points[key]
        outcome = Outcome(
            uid=f"{task}#{stage}#{key}",
            task=task,
            study=f"{task}@saved",
            stage=stage,
            number=number,
            epsilon=float(point["epsilon"]),
            classes=len(dataset.classes),
            point=dict(point),
            seeds=collection.seeds[seeds],
            metrics=metrics,
            curves={},
            temperature=temperature,
            bins=bins,
            seconds=0.0,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            risks=risks,
            calibrate_examples=len(dataset.splits["calibrate"].labels),
        )
        found[key] = outcome, logits
    return found


def evidence_of(
    collection: Collection,
    dataset: Dataset,
    choosing: Mapping[str, tuple[Outcome, Logits]],
    judging: Mapping[str, tuple[Outcome, Logits]],
    task: str,
    terms: Terms,
) -> Evidence:
    """Screen, confirm and decide."""
    screened = [outcome for outcome, _ in choosing.values()]
    control = collection.control
    epsilons = [outcome.epsilon for outcome in screened]
    screening = Screening(screened, choosing[control][0], terms.prices, (0.0, max(epsilons)))
    tied = ties(screening, terms)
    confirmed = [outcome for outcome, _ in judging.values()]
    chosen = {name: nearest(screening.point_at(tie), confirmed) for name, tie in tied.items()}
    wanted = {control, *(key_of(point) for point in chosen.values())}
    seeds = judging[control][0].seeds
    confirmation = Confirmation(dataset, terms, len(seeds), control)
    confirmation.add({key: found for key, found in judging.items() if key in wanted})
    comparisons = confirmation.comparisons()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    examples: dict[str, int] = {split: len(own.labels) for split, own in dataset.splits.items()}
    source = Source(f"{task}@saved", None, "uniform", examples["test"], 1, created, examples["calibrate"])
    recommendations = decide(
        chosen,
        comparisons,
        control,
        terms,
        source,
        tied={name: (tie.low, tie.high) for name, tie in tied.items()},
        between=confirmation.between,
        constant_first=constant_ahead(tied),
    )
    others = sorted(comparisons.keys() - {control}, key=lambda key: comparisons[key].epsilon)
    return Evidence(
        task=task,
        study=f"{task}@saved",
        run_id=None,
        created=created,
        plan="",
        facts={"members": "trained elsewhere", "seeds": str(len(collection.seeds))},
        classes=dataset.classes,
        examples=examples,
        policy=terms.policy,
        tolerances=asdict(terms.tolerances),
        prices=asdict(terms.prices),
        recommendations=recommendations,
        pilot=None,
        outcomes=tuple(sorted(screening.outcomes, key=lambda outcome: outcome.epsilon)),
        dropped=(),
        bands=screening.bands(),
        comparisons=tuple(comparisons[key] for key in (control, *others)),
        openings=(),
        instances=(),
    )
