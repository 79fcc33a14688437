"""Launchers: the interface that places workers and keeps them running."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from typing_extensions import override

from sweeps.errors import Failed
from sweeps.workers.supervisor import News

STOP_SECONDS = 20.0
"""Time for a worker to give its trials back before it is killed. Slurm and Kubernetes give 30 s."""


class NoWorkers(Failed):
    """All workers failed: why, and their last lines."""


class Launcher(ABC):
    """Places workers and keeps them running while a sweep is conducted.

    Used by one thread, as a context: workers start on entering and are gone after leaving, in all cases.
    """

    @abstractmethod
    def start(self) -> None:
        """Place the workers. Errors: WrongInput where there is no place for them."""

    @abstractmethod
    def watch(self) -> None:
        """Restart dead workers, and print their output. Call about once a second; it does not wait.

        Errors: NoWorkers where all were given up.
        """

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to give their trials back, and kill those that take too long. On Ctrl-C, kill all
        at once.
        """

    @abstractmethod
    def working(self) -> int:
        """Number of running workers, as of the last `watch`."""

    def __enter__(self) -> "Launcher":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Elsewhere(Launcher):
    """Places no worker: workers join from other machines, or this process trains."""

    @override
    def start(self) -> None:
        pass

    @override
    def watch(self) -> None:
        pass

    @override
    def stop(self) -> None:
        pass

    @override
    def working(self) -> int:
        return 0


@dataclass(frozen=True)
class Reporter:
    """Prints news of workers. Lines that a worker wrote as JSON go to stderr unchanged."""

    say: Callable[[str], None]
    json: bool = False

    def report(self, number: int, news: News) -> News:
        """Print a worker's news, and return them."""
        for line in news.output:
            if self.json:
                print(line, file=sys.stderr, flush=True)
            else:
                self.say(f"worker {number}: {line}")
        for sentence in news.events:
            self.say(sentence)
        return news


def judge(news: Iterable[News]) -> None:
    """Errors: NoWorkers where every worker was given up."""
    lost = [one.lost for one in news]
    if lost and all(lost):
        raise NoWorkers(
            "\n".join(
                (
                    "all workers failed. Finished trials are saved; fix the problem and rerun:",
                    *lost,
                )
            )
        )
