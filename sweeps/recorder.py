"""Recorder: hands finished trials to MLflow with their pictures and logits, and fetches logits back."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mlflow.exceptions import MlflowException

from lscal.diagram import Reliability, draw
from sweeps.datasets import Dataset, SplitName
from sweeps.worker import SCORED, Logits
from tracking.log import Sweep
from tracking.records import Bins, Outcome, Stage

DIAGRAMS: dict[Stage, tuple[str, ...]] = {"screen": ("select",), "confirm": ("test", "test_calibrated")}
"""Which of an outcome's bins are drawn."""


@dataclass
class Recorder:
    """Writes the trials of one study. Keeps the control, whose diagrams stand beside every other's."""

    sweep: Sweep
    dataset: Dataset
    say: Callable[[str], None]
    control: Outcome | None = None

    def finish(self, outcome: Outcome, logits: Logits) -> Outcome:
        """Log a trial, and return it with the id of its run.

        Where the tracking store fails, the outcome comes back without one: it is kept in the study, and the next run of
        the same command logs it.
        """
        if outcome.epsilon == 0:
            self.control = outcome
        files = {f"logits/{split}.npz": self.pack(split, outcome, values) for split, values in logits.items()}
        try:
            return self.sweep.trial(outcome, {**files, **self.figures(outcome)})
        except (MlflowException, OSError) as error:
            self.say(
                f"MLflow did not take trial {outcome.number}: {str(error).splitlines()[0]}. Its numbers are kept in the study; run the same "
                "command again to log them."
            )
            return outcome

    def catch_up(self, outcomes: Sequence[Outcome]) -> None:
        """Log the outcomes which the tracking store does not have: of a store that was away, or of another one."""
        self.control = next((outcome for outcome in outcomes if outcome.epsilon == 0), None)
        for outcome in outcomes:
            if outcome.uid not in self.sweep.logged:
                self.finish(outcome, {})

    def figures(self, outcome: Outcome) -> dict[str, bytes]:
        """Reliability diagrams as PNG: ε = 0, where it is known, with this ε beside it."""
        files = {}
        for key in DIAGRAMS[outcome.stage]:
            split, _, calibrated = key.partition("_")
            outcomes = [outcome] if self.control is None or outcome.epsilon == 0 else [self.control, outcome]
            after = " after temperature" if calibrated else ""
            shown = [diagram(f"{one.task} at ε = {one.epsilon:.4g}, {split}{after}", one.bins[key]) for one in outcomes]
            stream = io.BytesIO()
            draw(shown).savefig(stream, format="png")
            files[f"reliability/{split}{after.replace(' ', '_')}.png"] = stream.getvalue()
        return files

    def pack(self, split: SplitName, outcome: Outcome, logits: torch.Tensor) -> bytes:
        """Logits (seed, example, class) float32 with labels, seeds, ε, temperature per seed and class names, as npz."""
        stream = io.BytesIO()
        np.savez(
            stream,
            logits=logits.numpy(),
            labels=self.dataset.splits[split].labels.cpu().numpy(),
            seeds=np.array(outcome.seeds),
            epsilon=np.array(outcome.epsilon),
            temperature=np.array(outcome.temperature),
            classes=np.array(self.dataset.classes),
        )
        return stream.getvalue()

    def fetch(self, outcome: Outcome) -> Logits | None:
        """The logits of a trial which an earlier run logged; None where they are gone."""
        found: dict[SplitName, torch.Tensor] = {}
        for split in ("calibrate", *SCORED[outcome.stage]):
            content = self.sweep.logits(outcome, split)
            if content is None:
                return None
            found[split] = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False)["logits"])
        return found


def diagram(title: str, bins: Bins) -> Reliability:
    """A record's bins as a diagram."""
    return Reliability(title, bins.count, bins.confidence, bins.accuracy, bins.gap, bins.error)
