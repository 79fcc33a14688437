"""The command line behind `python -m lscal.audit`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lscal.audit import GENERATOR

if TYPE_CHECKING:
    from lscal.audit.files import Saved

SERIAL = 1 << 24
"""Numbers up to which one thread scores a file. 100,000 × 10 on two busy cores: 7 s of CPU time, but 44 s
where two threads wait for each other.
"""
DONE, WRONG_INPUT, INTERRUPTED = 0, 2, 130

DESCRIPTION = (
    "Say how far the confidence of a classifier can be trusted, from its saved predictions: a table here, and"
    " one HTML page."
)
EPILOG = """\
What a file holds, by the end of its name:
  .npz, .safetensors   arrays `logits` (rows, classes) or (models, rows, classes), and `labels`: (rows,) whole
                       numbers from 0, or (rows, classes) shares that add up to 1. If there: `classes`
                       (names, npz), `seeds` (names of the models).
                       The logits/*.npz that a sweep logs are such files.
  .parquet, .csv       columns `logit_0`, `logit_1`, … and `label`, or `label_0`, `label_1`, … for shares.
                       In parquet also a column of lists `logits`, and one of lists `label`.
`probabilities`, `probability_0`, … go in place of logits. They lose values below the
float's precision: prefer logits.
Nothing is guessed from the values, and nothing is unpickled.

Exit codes: 0 done, 2 wrong input, 130 interrupted.
"""
SHOWN = {"temperature", "p_norm"}
"""Recalibrations that every audit shows."""


class Refused(Exception):
    """A flag that cannot be followed: its value and the remedy."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m lscal.audit",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="predictions; a second file is compared with the first, row by row",
    )
    flags.add_argument(
        "--out", type=Path, metavar="PAGE.html", help="the page (default: FILE.audit.html, beside the file)"
    )
    flags.add_argument(
        "--kind", choices=("logits", "probabilities"), help="which to take where a file holds both"
    )
    flags.add_argument(
        "--train",
        type=Path,
        action="append",
        metavar="FILE",
        help=(
            "the same model's predictions of its training examples: from them, the ε it was trained with is"
            " estimated. Once for each file"
        ),
    )
    flags.add_argument(
        "--member", type=int, metavar="I", help="only model I of files that hold several, from 0"
    )
    flags.add_argument(
        "--calibrator",
        action="append",
        metavar="NAME",
        help=(
            "score a further recalibration of one file, cross-fitted, in a column of its own: vector, svs,"
            " sms, ets, isotonic, or netcal's histogram, beta and bbq. May be given several times. On log"
            " loss isotonic, histogram and bbq lose to one temperature in most of 632 experiments (CalArena"
            " 2026)"
        ),
    )
    flags.add_argument("--ignore-index", type=int, metavar="LABEL", help="rows with this label do not count")
    flags.add_argument(
        "--replicates",
        type=int,
        default=1000,
        metavar="N",
        help="resamples behind each interval (default 1000)",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the table has closed it; the page is written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def run(options: argparse.Namespace) -> None:
    """Read, audit, print and write."""
    files: list[Path] = options.files
    trains: list[Path] = options.train or []
    if len(files) > 2:
        raise Refused(f"{len(files)} files were given; one is audited, two are compared")
    if trains and len(trains) != len(files):
        raise Refused(
            f"--train was given {len(trains)} times for {len(files)} files; give it once for each, in their"
            " order"
        )
    if options.replicates < 1:
        raise Refused(f"--replicates is {options.replicates}; allowed is 1 or more")
    methods: list[str] = list(dict.fromkeys(options.calibrator or ()))
    if methods and len(files) > 1:
        raise Refused("--calibrator is for the audit of one file; two were given")
    out = options.out or default_page(files)
    check_page(out)

    import torch

    from lscal.audit import terminal
    from lscal.audit.audit import Audit, Comparison
    from lscal.audit.files import WrongFile, read, same_examples, same_model
    from lscal.audit.page import page
    from lscal.calibrators import CALIBRATORS
    from lscal.estimate import Resamples

    further = sorted(CALIBRATORS.keys() - SHOWN)
    if wrong := [name for name in methods if name not in further]:
        raise Refused(f"--calibrator is {wrong[0]!r}; allowed are {', '.join(further)}")

    def load(path: Path) -> "Saved":
        return read(path, kind=options.kind, member=options.member, ignore_index=options.ignore_index)

    try:
        saved = [load(path) for path in files]
        train = [load(path) for path in trains] if trains else [None for _ in files]
        if len(saved) == 2:
            same_examples(*saved)
        for own, of_train in zip(saved, train, strict=True):
            if of_train is not None:
                same_model(own, of_train)
        with terminal.working(f"scoring {' and '.join(names_of(files))}"):
            if saved[0].predictions.scores.numel() <= SERIAL:
                torch.set_num_threads(1)
            resamples = Resamples.draw(saved[0].predictions.examples, replicates=options.replicates)
            audits = [
                Audit.of(name, own, resamples, of_train, methods)
                for name, own, of_train in zip(names_of(files), saved, train, strict=True)
            ]
            comparison = Comparison(*audits) if len(audits) == 2 else None
            written = page(audits, comparison)
    except WrongFile as error:
        raise Refused(str(error)) from error
    write(out, written)
    terminal.show(audits, comparison)
    print(f"\npage: {out}")


def names_of(files: Sequence[Path]) -> list[str]:
    """Names of the files on the page: the name of one; of two the part that differs, at best their names
    without endings.
    """
    if len(files) == 1:
        return [readable(files[0].name)]
    parts = [path.resolve().parts for path in files]
    choices = [
        [path.stem for path in files],
        *([os.sep.join(part[-length:]) for part in parts] for length in range(1, max(map(len, parts)) + 1)),
    ]
    apart = next((names for names in choices if len(set(names)) == len(names)), None)
    return [
        readable(name) for name in apart or [f"{files[0].name} ({which})" for which in ("first", "second")]
    ]


def readable(name: str) -> str:
    """The name with a question mark for each byte that is no text."""
    return name.encode("utf-8", "replace").decode("utf-8")


def default_page(files: Sequence[Path]) -> Path:
    """Beside the first file."""
    return files[0].with_name(f"{'.vs.'.join(path.stem for path in reversed(files))}.audit.html")


def check_page(out: Path) -> None:
    """Errors: Refused where the page cannot be written, or would replace a file that is no page of ours."""
    if out.is_dir():
        raise Refused(f"--out {out} is a folder; give the name of a page in it, such as {out / 'audit.html'}")
    if not out.parent.is_dir():
        raise Refused(f"--out {out}: there is no folder {out.parent}")
    if out.exists() and not is_ours(out):
        raise Refused(f"--out {out} exists and is no audit page; it is not replaced. Give another name")


def is_ours(out: Path) -> bool:
    """Whether a file is a page that an audit wrote."""
    try:
        with out.open("rb") as file:
            return f'content="{GENERATOR}"'.encode() in file.read(1000)
    except OSError as error:
        raise Refused(f"--out {out} cannot be read: {error}") from error


def write(out: Path, page: str) -> None:
    """Write the page, whole or not at all. Errors: Refused where that is not possible."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False
        ) as part:
            part.write(page)
        os.chmod(part.name, 0o644)
        os.replace(part.name, out)
    except OSError as error:
        raise Refused(f"--out {out} cannot be written: {error}") from error
