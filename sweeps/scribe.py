"""Scribe: writes finished trials to MLflow with their pictures and logits, in a process of its own.

Drawing and MLflow are slow Python; the training runs on meanwhile. This module imports no torch, so that its process is
there soon, and it is not reached by Ctrl-C: what was handed over is still written.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lscal.diagrams import Reliability, draw
from sweeps.overview import overview
from tracking.evidence import Evidence
from tracking.inputs import Inputs
from tracking.log import Sweep, connect
from tracking.model import ExportedModel
from tracking.records import Bins, Facts, Outcome, Stage
from tracking.store import TrackingUnavailable
from tracking.summary import Table

Logits = npt.NDArray[np.float32]
"""(seed, example, class)."""
DIAGRAMS: dict[Stage, tuple[str, ...]] = {"pilot": ("select",), "screen": ("select",), "confirm": ("test", "test_calibrated")}
"""Which of an outcome's bins are drawn."""


class Scribe:
    """The runs of one sweep after another. The controls are kept: their diagrams stand beside every other's."""

    def __init__(self, uri: str):
        self.client = connect(uri)
        self.controls: dict[str, Outcome] = {}
        self.opened: Sweep | None = None

    def open(self, task: str, study: str, facts: Facts, inputs: Inputs) -> tuple[str, str]:
        """Begin or go on with a sweep. Returns the id of its parent run and the address of its trials in the UI."""
        self.opened = None  # if this fails, nothing may be written to the runs of the sweep before
        self.opened = Sweep(self.client, task, study, facts, inputs)
        return self.opened.parent, self.opened.link("")

    @property
    def sweep(self) -> Sweep:
        """The sweep which is written. Errors: TrackingUnavailable where it could not be opened."""
        if self.opened is None:
            raise TrackingUnavailable("the runs of this sweep could not be opened in MLflow, so nothing of it was written")
        return self.opened

    def catch_up(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes which the tracking store does not have: it was away, or is another one. Their logits are gone."""
        for outcome in sorted(outcomes, key=lambda outcome: outcome.epsilon):
            self.trial(outcome, {}, {}, (), {})

    def trial(
        self,
        outcome: Outcome,
        logits: Mapping[str, Logits],
        labels: Mapping[str, npt.NDArray[np.int64]],
        classes: Sequence[str],
        files: Mapping[str, bytes],
    ) -> None:
        """Write a finished trial, with further `files` by path."""
        if outcome.epsilon == 0:
            self.controls[outcome.study] = outcome
        if outcome.uid in self.sweep.logged:
            return
        packed = {f"logits/{split}.npz": pack(outcome, values, labels[split], classes) for split, values in logits.items()}
        control = self.controls.get(outcome.study)
        shown = [outcome] if control is None or outcome.epsilon == 0 else [control, outcome]
        drawn = {picture_path(key): reliability(shown, key) for key in DIAGRAMS[outcome.stage] if outcome.bins}
        self.sweep.trial(outcome, {**packed, **drawn, **files})

    def artifact(self, outcome: Outcome, path: str) -> bytes | None:
        """A file of a trial which an earlier run wrote; None where it is gone."""
        return self.sweep.artifact(outcome, path)

    def logits(self, outcome: Outcome, splits: Sequence[str]) -> dict[str, Logits] | None:
        """The logits of a trial which an earlier run wrote; None where they are gone."""
        found: dict[str, Logits] = {}
        for split in splits:
            content = self.sweep.artifact(outcome, f"logits/{split}.npz")
            if content is None:
                return None
            found[split] = np.load(io.BytesIO(content), allow_pickle=False)["logits"]
        return found

    def publish(self, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None) -> int:
        """Write what was found, from now on to be pulled. Returns the number of the published version."""
        chosen = evidence.recommendations[evidence.policy]
        control, *others = (one.outcome for one in evidence.comparisons)
        shown = [control, *(one for one in others if one.epsilon == chosen.candidate)][:2]
        pictures = {"overview.png": overview(evidence), "reliability.png": reliability(shown, "test")}
        return self.sweep.publish(evidence, tables, model, pictures)

    def stop(self, status: str) -> None:
        """Mark the sweep as KILLED or FAILED."""
        self.sweep.stop(status)


def picture_path(key: str) -> str:
    """Where the diagram of some bins is among the artifacts."""
    return f"reliability/{key.replace('_calibrated', '_after_temperature')}.png"


def reliability(outcomes: Sequence[Outcome], key: str) -> bytes:
    """Reliability diagrams side by side as PNG, of the bins under `key` of each outcome."""
    split, _, calibrated = key.partition("_")
    after = " after temperature" if calibrated else ""
    shown = [diagram(f"{one.task} at ε = {one.epsilon:.4g}, {split}{after}", one.bins[key], len(one.seeds)) for one in outcomes]
    stream = io.BytesIO()
    draw(shown).savefig(stream, format="png")
    return stream.getvalue()


def pack(outcome: Outcome, logits: Logits, labels: npt.NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Logits (seed, example, class) float32 with labels, seeds, ε, temperature per seed and class names, as npz."""
    stream = io.BytesIO()
    np.savez(
        stream,
        logits=logits,
        labels=labels,
        seeds=np.array(outcome.seeds),
        epsilon=np.array(outcome.epsilon),
        temperature=np.array(outcome.temperature),
        classes=np.array(classes),
    )
    return stream.getvalue()


def diagram(title: str, bins: Bins, seeds: int) -> Reliability:
    """A record's bins as a diagram."""
    return Reliability.of_bins(
        title,
        count=bins.count,
        confidence=bins.confidence,
        accuracy=bins.accuracy,
        gap=bins.gap,
        error=bins.error,
        members=seeds,
    )
