"""Checkpoints of the trials of a worker.

A member is the same to the last bit whoever is trained beside it, so a trial may go on in another population
than it began in.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sweeps.errors import WrongInput
from sweeps.training.checkpoint import Checkpoint
from sweeps.training.member import Member

EVERY_SECONDS = 10.0
"""How much training may be lost."""
SHARE = 0.05
"""How much of its time a training may spend on checkpoints."""


@dataclass
class TrialCheckpoints:
    """The checkpoints of some trials that are trained together.

    Attributes:
        folder: where the files lie; several workers may share it.
        trials: by uid, the members of each trial, in the population's order.
        identity: what a checkpoint of members has to agree in, see `Engine.identity`.
        seconds: how often to write.
        share: how much of its time a training may spend on writing.
    """

    folder: Path
    trials: Mapping[str, Sequence[Member]]
    identity: Callable[[Sequence[Member]], str]
    say: Callable[[str], None]
    seconds: float = EVERY_SECONDS
    share: float = SHARE

    def __post_init__(self) -> None:
        self.due = time.monotonic() + self.seconds
        self.broken = False

    def read(self, names: Collection[str]) -> Checkpoint | None:
        """What all the trials go on from; None where one of them has no sound file for a state of these
        `names`, or they were not trained equally far.
        """
        found: list[Checkpoint] = []
        for uid, members in self.trials.items():
            path = place(self.folder, uid)
            if not path.exists():
                return None
            try:
                one = Checkpoint.read(path)
                one.check(self.identity(members), names)
            except WrongInput as error:
                self.say(f"A checkpoint is not used, and its trial is trained from the start: {error}")
                path.unlink(missing_ok=True)
                return None
            found.append(one)
        if len({int(one.epochs.max()) for one in found}) != 1:
            return None
        starts = [sum(len(one.epochs) for one in found[:index]) for index in range(len(found))]
        return Checkpoint(
            self.identity([member for members in self.trials.values() for member in members]),
            tuple(start + row for start, one in zip(starts, found, strict=True) for row in one.rows),
            {name: torch.cat([one.state[name] for one in found]) for name in found[0].state},
            {name: torch.cat([one.curves[name] for one in found], 1) for name in found[0].curves},
            torch.cat([one.epochs for one in found]),
        )

    def offer(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint of the population, if it is time to. Where there is no place to write to, the
        training goes on without.
        """
        started = time.monotonic()
        if started < self.due or self.broken:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write(checkpoint())
        except (OSError, SafetensorError) as error:
            self.broken = True
            self.say(
                f"No checkpoints are written any more, as {self.folder} does not take them: {error}. The"
                " training goes on."
            )
        now = time.monotonic()
        self.due = now + max(self.seconds, (now - started) / self.share)

    def write(self, whole: Checkpoint) -> None:
        """Write each trial's part."""
        start = 0
        for uid, members in self.trials.items():
            rows = range(start, start + len(members))
            start = rows.stop
            places = [index for index, row in enumerate(whole.rows) if row in rows]
            if places:  # or else it was dropped
                part = Checkpoint(
                    self.identity(members),
                    tuple(whole.rows[index] - rows.start for index in places),
                    {name: value[places] for name, value in whole.state.items()},
                    {name: value[:, rows.start : rows.stop] for name, value in whole.curves.items()},
                    whole.epochs[rows.start : rows.stop],
                )
                part.write(place(self.folder, uid))


def place(folder: Path, uid: str) -> Path:
    """Where a trial's checkpoint is."""
    return folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.safetensors"


def epochs_done(folder: Path, uid: str) -> int:
    """How many epochs a trial's checkpoint has, 0 without a sound one."""
    path = place(folder, uid)
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            return int(file.get_tensor("epochs").max())
    except (SafetensorError, OSError):
        return 0
