"""Entries: an outbox with trials and findings of a made sweep."""

from dataclasses import replace

import made

from tracking.mlflow.client import identity
from tracking.outbox.outbox import Outbox, Record
from tracking.records.about import About
from tracking.records.inputs import Inputs
from tracking.records.outcome import Facts
from tracking.report import summary

FOUND = made.evidence()
UNPLACED = replace(
    FOUND,
    run_id="",
    recommendations={key: replace(one, run_id="") for key, one in FOUND.recommendations.items()},
)
FACTS = Facts(
    {"dataset": "digits"},
    {"version.torch": "2.13.0"},
    "digits",
    "0123456789abcdef",
    "bundled with scikit-learn",
    FOUND.plan,
)
LOGITS = "logits/select.npz"


def about(uri, study=FOUND.study):
    return About(
        FOUND.task, study, identity(uri), FACTS, Inputs(FOUND.examples, FOUND.classes, "uint8", (1, 8, 8))
    )


def trial(number, uri, study=FOUND.study):
    """The record of a trial, each with a uid of its own."""
    outcome = replace(
        FOUND.outcomes[number % len(FOUND.outcomes)], number=number, uid=f"{study}#{number}", study=study
    )
    return Record.of_trial(about(uri, study), outcome)


def findings(uri):
    tables = [summary.screening(FOUND.outcomes), summary.conditions(FOUND.recommendations[FOUND.policy])]
    return Record.of_findings(about(uri), UNPLACED, tables, None)


def filled(folder, uri, trials=4, size=1000, study=FOUND.study):
    """An outbox with so many trials, each with a file of so many bytes."""
    outbox = Outbox(folder)
    for number in range(trials):
        assert outbox.put(trial(number, uri, study), {LOGITS: bytes([number]) * size}, print)
    return outbox
