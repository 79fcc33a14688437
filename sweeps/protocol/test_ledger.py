"""Ledger of the openings of the test split.

The split is opened once for a plan: for its finalists and the seeds planned for them. Trying other finalists
on it later would choose on *test*; it is refused unless asked for, and all claims ever made on it then count
as one family.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.studies.study import Study
from tracking.records.evidence import Opening
from tracking.records.point import Point, brief, key_of

OPENINGS, CLAIMS = "openings", "claims"


class TestOpened(WrongInput):
    """The test split was opened for other finalists."""

    __test__ = False  # it is no test, whatever pytest thinks of its name


def openings_of(study: Study) -> tuple[Opening, ...]:
    """All openings for the study's plan, the first one first."""
    return tuple(
        Opening(
            entry["when"],
            entry["run_id"],
            entry["study"],
            tuple(entry["points"]),
            tuple(entry["seeds"]),
            entry["terms"],
        )
        for entry in study.noted(OPENINGS) or []
    )


def open_test(
    study: Study, points: Sequence[Point], seeds: int, run_id: str, reopen: bool, say: Callable[[str], None]
) -> tuple[Opening, ...]:
    """Note that *test* is opened for these points and so many seeds on the plan's terms, before it is; going
    on with the last opening is no new one. Its claims are noted as lost until they are known: who looks and
    walks away has looked.

    Errors: TestOpened where it was opened for others or on other terms, and `reopen` is False.
    """
    terms = in_words(study.plan)
    earlier = openings_of(study)
    wanted = sorted(map(key_of, points))
    if earlier and (sorted(map(key_of, earlier[-1].points)), len(earlier[-1].seeds), earlier[-1].terms) == (
        wanted,
        seeds,
        terms,
    ):
        return earlier
    if earlier and not reopen:
        last = earlier[-1]
        raise TestOpened(
            f"the test split of {study.name} was opened on {last.when} by run {last.run_id}, for"
            f" {described(last.points)} with up to {len(last.seeds)} seeds and {last.terms}. Now it would be"
            f" for {described(points)} with up to {seeds} seeds and {terms}: that would choose on test. The"
            " recommendation of that run stands. To open it again, with all claims counted, add"
            " --reopen-test."
        )
    opening = Opening(
        datetime.now(UTC).isoformat(timespec="seconds"),
        run_id,
        study.name,
        tuple(points),
        tuple(range(seeds)),
        terms,
    )
    if earlier:
        say(
            f"The test split is opened again, opening {len(earlier) + 1}: claims made on it earlier are"
            " counted with the new ones."
        )
    study.note(OPENINGS, [asdict(one) for one in (*earlier, opening)])
    note_claims(study, [1.0] * (len(points) - 1))
    return (*earlier, opening)


def refuse_more(study: Study) -> None:
    """Before anything is trained. Errors: TestOpened where trials are still to be screened after *test* was
    opened.
    """
    openings = openings_of(study)
    if openings and study.unfinished():
        raise TestOpened(
            f"the test split of {study.name} was opened on {openings[-1].when}; {study.unfinished()} more"
            " trials could change the finalists, which would then be chosen after it was seen. To train them"
            " and open it again, with all claims counted, add --reopen-test."
        )


def in_words(plan: Plan) -> str:
    """Policy, tolerances and prices of a plan."""
    limits = ", ".join(f"{name} {value:g}" for name, value in asdict(plan.tolerances).items())
    prices = plan.prices
    return (
        f"policy {plan.policy} (tolerances {limits}; prices"
        f" {prices.wrong:g}:{prices.review:g}:{prices.right:g})"
    )


def note_claims(study: Study, p_values: Sequence[float]) -> None:
    """Keep the p-values of the claims which were made in the last opening."""
    study.note(CLAIMS, {**(study.noted(CLAIMS) or {}), str(len(openings_of(study))): list(p_values)})


def earlier_claims(study: Study) -> list[float]:
    """The p-values of all claims made in openings before the last one."""
    last = str(len(openings_of(study)))
    return [
        p for opening, p_values in (study.noted(CLAIMS) or {}).items() if opening != last for p in p_values
    ]


def described(points: Sequence[Point]) -> str:
    """The finalists in words."""
    return ", ".join(
        " ".join(f"{'ε' if name == 'epsilon' else name} = {brief(value, 6)}" for name, value in point.items())
        for point in points
    )
