"""Replay: `python -m tracking.replay` sends what is in an outbox to MLflow. It may run beside workers, and
any number of times.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tracking.exits import Exit
from tracking.mlflow.client import DEFAULT_URI, TrackingUnavailable, WrongAddress, identity, reach
from tracking.outbox.outbox import Damaged, Outbox, OutboxEntry, megabytes
from tracking.recommend import resolved

OUTBOX = "outbox"
DEFAULT_STATE = "lscal-state"
WAIT_SECONDS = 0.2
OTHERS_SECONDS = 10
"""How long entries that another process is sending are waited for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(arguments)
    uri = resolved(options.tracking_uri)
    folder = Path(options.outbox or Path(os.environ.get("LSCAL_STATE") or DEFAULT_STATE, OUTBOX))
    try:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no outbox {str(folder)!r}. Give its folder with --outbox DIR.")
        outbox = Outbox(folder)
        if options.list:
            return listed(outbox)
        identity(uri)
        if outbox.entries(uri) and not options.follow:
            reach(uri)
    except (OSError, WrongAddress) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    except TrackingUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return rest(outbox, uri)
    return followed(outbox, uri, options.stop_file) if options.follow else replay(outbox, uri)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m tracking.replay",
        description=(
            "Send what a sweep could not send to MLflow, in order. What is sent is deleted; nothing is"
            " written twice."
        ),
        epilog="Exit codes: 0 all is sent, 1 something is left, 2 wrong input, 130 interrupted.",
        allow_abbrev=False,
    )
    flags.add_argument(
        "--outbox",
        metavar="DIR",
        help=f"the folder (default LSCAL_STATE/{OUTBOX}, or else {DEFAULT_STATE}/{OUTBOX})",
    )
    flags.add_argument(
        "--tracking-uri", metavar="URI", help=f"MLflow (default MLFLOW_TRACKING_URI, or else {DEFAULT_URI})"
    )
    flags.add_argument(
        "--list", action="store_true", help="print what is there and for which server; send nothing"
    )
    flags.add_argument(
        "--follow",
        action="store_true",
        help="go on sending what is put there, whether or not MLflow answers now, until Ctrl-C or SIGTERM",
    )
    flags.add_argument(
        "--stop-file", metavar="FILE", help="with --follow: end when FILE exists and all that can be is sent"
    )
    return flags


def replay(outbox: Outbox, uri: str) -> int:
    """Send what is there for a tracking store, with a line for each entry; the exit code."""
    from tracking.outbox.sender import Sender  # MLflow takes seconds to import; wrong input does not wait

    sender = Sender(outbox, uri, lambda _: {})
    patience = time.monotonic() + OTHERS_SECONDS
    try:
        while sender.waiting() and time.monotonic() < patience:
            sent = sender.step()
            if sent is None:
                time.sleep(WAIT_SECONDS)
                continue
            patience = time.monotonic() + OTHERS_SECONDS
            if sent.line:
                print(sent.line, flush=True)
    except TrackingUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        rest(outbox, uri)
        return Exit.INTERRUPTED
    return rest(outbox, uri)


def followed(outbox: Outbox, uri: str, stop_file: str | None) -> int:
    """Send what is put into the outbox until Ctrl-C, SIGTERM, or until the file is there; the exit code."""
    from tracking.outbox.follow import follow

    def stop(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not (stop_file and os.path.exists(stop_file)):
            if (left := end - time.monotonic()) <= 0:
                return False
            time.sleep(min(WAIT_SECONDS, left))
        return True

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        follow(outbox, uri, lambda _: {}, stop, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    return rest(outbox, uri)


def rest(outbox: Outbox, uri: str) -> int:
    """Say what is left, for this tracking store and for others; the exit code."""
    if sentence := outbox.left(uri).sentence:
        print(sentence)
    own = set(outbox.entries(uri))
    others = [entry for entry in outbox.entries() if entry not in own]
    for server, count in sorted(counted(others).items()):
        print(f"{count} more for {server}: not sent, as the tracking store given is {identity(uri)}.")
    damaged = sorted(path.name for path in outbox.folder.glob("*.damaged"))
    for name in damaged:
        print(f"damaged and set aside: {outbox.folder / name}")
    if own or others:
        return Exit.FAILED
    print(f"The outbox {outbox.folder} is empty: all is sent.")
    return Exit.DONE


def counted(entries: Sequence[OutboxEntry]) -> dict[str, int]:
    """How many entries there are for each tracking store."""
    found: dict[str, int] = {}
    for entry in entries:
        try:
            server = entry.read()[0].about.server
        except (Damaged, OSError):
            server = "a tracking store which cannot be read"
        found[server] = found.get(server, 0) + 1
    return found


def listed(outbox: Outbox) -> int:
    """Print a line for each entry; the exit code."""
    entries = outbox.entries()
    for entry in entries:
        try:
            record, files = entry.read()
        except (Damaged, OSError) as error:
            print(f"damaged: {error}")
            continue
        print(
            f"{record.written}  {megabytes(entry.path.stat().st_size):>9}  {len(files)} files  {record.what} "
            f" for {record.about.server}"
        )
    print(f"{len(entries)} entries, {megabytes(outbox.bytes())} of at most {megabytes(outbox.limit)}")
    return Exit.FAILED if entries else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
