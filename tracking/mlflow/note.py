"""Note above a list of runs and on a run's page in MLflow, as Markdown that begins with the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracking.mlflow import view
from tracking.mlflow.versions import ALIAS
from tracking.names import model_of
from tracking.records.evidence import Evidence
from tracking.records.outcome import Outcome
from tracking.report.answer import first, sentences
from tracking.report.summary import LEGEND, Table, name

LIMIT = 8000
"""Characters of a note; MLflow cuts the rest without a word."""
STAGES = {
    "pilot": "Pilot: how much two trainings differ, before the sweep is planned; scored on *select*.",
    "screen": "Screening trial: ε is chosen among these; scored on *select*.",
    "confirm": "Confirmation: fresh seeds that had no part in choosing ε; scored on *test*.",
}


@dataclass(frozen=True)
class Places:
    """Addresses in the MLflow UI of the targets of a note's links.

    Attributes:
        experiment, run: ids; the run is the sweep's.
        version: of the registered model.
        servable: whether that version is a network that can be loaded.
    """

    experiment: str
    run: str
    version: int
    servable: bool

    def of_run(self, path: str = "") -> str:
        """The run, or one of its tabs, in the UI for training; the UI for language models comes first
        otherwise.
        """
        return f"#/experiments/{self.experiment}/runs/{self.run}{path}?workflowType=machine_learning"


def of_sweep(evidence: Evidence, tables: Sequence[Table], places: Places) -> str:
    """The answer, the way to everything else, the pictures, why, and as many of the tables as fit."""
    chosen, model = evidence.recommendations[evidence.policy].best, model_of(evidence.task)
    links = [
        f"[the page]({places.of_run('/artifacts/page.html')})",
        f"[trials by ε]({view.address(places.experiment, view.TRIALS)})",
        f"[confirmed on test]({view.address(places.experiment, view.CONFIRMED)})",
        f"[this sweep's run]({places.of_run()})",
        (
            f"[model {model}, version"
            f" {places.version}](#/models/{model}/versions/{places.version}?workflowType=machine_learning)"
        ),
    ]
    action, *rest = sentences(evidence.recommendations, evidence.policy)
    parts = [
        f"**{action}**",
        *rest,
        f"Why, and what would change it: {' · '.join(links)}",
        f"Policy {chosen.policy}. {chosen.reason}",
    ]
    parts.append(f"![accuracy, ECE and AURC over ε]({picture('overview.png', places.run)})")
    pull = f"python -m tracking.recommend {evidence.task}"
    if places.servable:
        load = (
            f'import mlflow\nmodel = mlflow.pytorch.load_model("models:/{model}@{ALIAS}")\nprobabilities ='
            " model(inputs)"
        )
        parts.append(
            f"Pull ε: `{pull}`. Load the network; its outputs are calibrated"
            f" probabilities:\n\n```python\n{load}\n```"
        )
    else:
        parts.append(f"Pull ε: `{pull}`")
    others = [
        f"- {name}: {first(other.best)}"
        for name, other in evidence.recommendations.items()
        if name != evidence.policy
    ]
    if others:
        parts.append("**By other policies**\n\n" + "\n".join(others))
    parts.append(f"![reliability diagrams on test]({picture('reliability.png', places.run)})")
    for part in (*(table.to_markdown() for table in tables), LEGEND):
        if len("\n\n".join([*parts, part])) <= LIMIT:
            parts.append(part)
    return "\n\n".join(parts)[:LIMIT]


def of_trial(outcome: Outcome) -> str:
    """Kind of a run and its result, in two lines."""
    if outcome.dropped:
        return f"{STAGES[outcome.stage]}\n\nDropped: {outcome.dropped}"
    split = "test" if outcome.stage == "confirm" else "select"
    accuracy, raw, calibrated = (
        100 * outcome.mean(f"{split}/{metric}") for metric in ("accuracy", "ece", "ece_calibrated")
    )
    spread = f" ± {100 * outcome.spread(f'{split}/accuracy'):.2f}" if len(outcome.seeds) > 1 else ""
    found = f"accuracy {accuracy:.2f}{spread} %, ECE {raw:.2f} %, after temperature {calibrated:.2f} %"
    return f"{STAGES[outcome.stage]}\n\nε = {name(outcome)}, seeds {numbers(outcome.seeds)}: {found}."


def picture(path: str, run: str) -> str:
    """Where the UI finds an artifact of a run."""
    return f"get-artifact?path={path}&run_uuid={run}"


def numbers(values: Sequence[int]) -> str:
    """Numbers in short: `5000–5003`, or each of them where they do not follow one another."""
    first, last = values[0], values[-1]
    if len(values) > 1 and tuple(values) == tuple(range(first, last + 1)):
        return f"{first}–{last}"
    return ", ".join(str(value) for value in values)
