"""Pilot: two seeds at ε = 0 and 0.1, trained first to estimate what the sweep can detect, and its cost."""

import base64
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from lscal import Predictions
from sweeps.data.dataset import Dataset
from sweeps.plan import Plan
from sweeps.scoring import Logits
from sweeps.studies.design import control_point
from sweeps.studies.study import Study
from sweeps.training.engine import Engine
from tracking.decision.power import Expected, pilot_of
from tracking.decision.sequential import BATCH
from tracking.records.evidence import Pilot
from tracking.records.outcome import Outcome
from tracking.records.point import Point, key_of

SEEDS = 2
EPSILON = 0.1
FINALISTS, FINALISTS_OF_BOTH = 2, 8
"""Number of candidates in the estimate of the cost, of constant ε and where some fall to 0: policies often
agree.
"""
RIGHT = "right"

Right = npt.NDArray[np.bool_]


def points(plan: Plan, control: Point) -> list[Point]:
    """ε = 0, and the value of the plan's range nearest to 0.1."""
    low, high = plan.epsilon
    return [control, {**control, "epsilon": min(max(EPSILON, low), high) or low}]


def finalists(plan: Plan) -> int:
    """Number of candidates in the estimate of the cost."""
    return FINALISTS_OF_BOTH if plan.dropping else FINALISTS


def most_confirm_seeds(plan: Plan) -> int:
    """Most seeds of the confirmation: about as many members as the screening, all finalists together."""
    return max(BATCH, plan.trials * plan.seeds // (1 + FINALISTS) // BATCH * BATCH)


def expected(plan: Plan, dataset: Dataset) -> Expected:
    """What a plan's sweep of a data set can detect, before its pilot."""
    return Expected.of(
        len(dataset.splits["test"].labels), plan.effect, plan.confirm_seeds, most_confirm_seeds(plan)
    )


def keep(study: Study, found: Mapping[str, tuple[Outcome, Logits]], engine: Engine) -> None:
    """Store with the study that examples of *select* and *calibrate* each member gets right: a bit each."""
    labels = {split: engine.dataset.splits[split].targets.cpu() for split in ("select", "calibrate")}
    rows = []
    for point in points(study.plan, control_point(study.plan, study.task)):
        _, logits = found[key_of(point)]
        right = [
            Predictions.from_logits(logits[split], labels[split]).correct for split in ("select", "calibrate")
        ]
        rows.append(torch.cat(right, 1).numpy())
    bits = np.stack(rows)
    study.note(
        RIGHT, {"shape": list(bits.shape), "bits": base64.b64encode(np.packbits(bits).tobytes()).decode()}
    )


def kept(study: Study) -> Right | None:
    """Whether each member is right: (ε, seed, example); None where the pilot is not finished."""
    noted = study.noted(RIGHT)
    if noted is None:
        return None
    shape = tuple(noted["shape"])
    bits = np.unpackbits(np.frombuffer(base64.b64decode(noted["bits"]), np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def report(study: Study, right: Right, engine: Engine) -> Pilot:
    """The pilot's report on the sweep of the study's plan."""
    plan = study.plan
    compared = points(plan, control_point(plan, study.task))[1]
    return pilot_of(
        right[0],
        right[1],
        epsilon=compared["epsilon"],
        test_examples=len(engine.dataset.splits["test"].labels),
        member_seconds=engine.execution.seconds * study.task.recipe.epochs,
        effect=plan.effect,
        price_per_hour=plan.price_per_hour,
        screening_members=plan.trials * plan.seeds,
        finalists=finalists(plan),
        confirm_seeds=plan.confirm_seeds,
        most_confirm_seeds=most_confirm_seeds(plan),
    )
