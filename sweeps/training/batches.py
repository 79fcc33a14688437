"""Batches of training examples, and chunks of the other splits."""

import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from sweeps.data.dataset import IGNORED, Dataset, Split, SplitName
from sweeps.task import Recipe
from sweeps.training.augmentation import Augmentation
from sweeps.training.randomness import stream

SHARE = 0.5
"""Data that take more than this share of the free memory are streamed; models and activations need the
rest.
"""
AHEAD = 4
"""Batches that are gathered ahead of their use."""


@dataclass(frozen=True)
class Batches(ABC):
    """Batches of *train* in each seed's own order, and every split in its stored order.

    What comes is decided by seeds and epochs alone: feeds of both kinds give bitwise the same, and several
    threads may iterate at once.

    Attributes:
        dataset: the data, where they lie.
        labels: the labels of each split, on the device.
        batch: examples in a batch of one seed.
        steps: batches in an epoch; the last incomplete one is dropped.
    """

    dataset: Dataset
    labels: dict[SplitName, Int[Tensor, "example *position"]]
    batch: int
    steps: int
    augmentation: Augmentation | None
    device: torch.device

    @staticmethod
    def of(dataset: Dataset, recipe: Recipe, device: torch.device, limit: float | None = None) -> "Batches":
        """The batches of a task on a device: resident where what has to be moved to the device takes up to
        `limit` bytes (half of the free memory, unless given), otherwise streamed.

        Errors: WrongInput for an augmentation that does not suit the inputs.
        """
        resident = takes(dataset, device) <= (SHARE * free_bytes(device) if limit is None else limit)
        placed = dataset.to(device) if resident else dataset
        examples = len(dataset.splits["train"].labels)
        batch = min(recipe.batch_size, examples)
        return (ResidentBatches if resident else StreamedBatches)(
            dataset=placed,
            labels={name: split.labels.to(device) for name, split in placed.splits.items()},
            batch=batch,
            steps=examples // batch,
            augmentation=Augmentation.parse(recipe.augment, dataset.shape) if recipe.augment else None,
            device=device,
        )

    def epoch(
        self, seeds: Sequence[int], epoch: int
    ) -> Iterator[
        tuple[
            Shaped[Tensor, "seed batch *shape"],
            Int[Tensor, "seed batch *position"],
            Int[Tensor, "seed batch"],
        ]
    ]:
        """The batches of an epoch: standardised and augmented inputs, labels, and which examples of *train*
        they are.

        A seed's batches are the same whichever the others are.
        """
        examples = len(self.labels["train"])
        order = torch.stack(
            [torch.randperm(examples, generator=stream(seed, epoch, "order")) for seed in seeds]
        )
        order = order[:, : self.steps * self.batch]
        augmentation = self.augmentation
        choices = None if augmentation is None else augmentation.draw(seeds, epoch, examples).to(self.device)
        with closing(self.stored("train", order, self.batch)) as batches:
            for rows, stored in zip(cut(order.to(self.device), self.batch), batches, strict=True):
                inputs = self.dataset.prepare(stored)
                if augmentation is not None and choices is not None:
                    inputs = augmentation(
                        inputs, choices.gather(1, rows[..., None].expand(-1, -1, choices.shape[-1]))
                    )
                yield inputs, self.labels["train"][rows], rows

    def targets(self, split: SplitName) -> Int[Tensor, " prediction"]:
        """The labels that predictions of a split are compared with, see `Split.targets`."""
        labels = self.labels[split]
        return labels if labels.ndim == 1 else labels[labels != IGNORED]

    def chunks(
        self, split: SplitName, size: int
    ) -> Iterator[tuple[Shaped[Tensor, "example *shape"], Int[Tensor, "example *position"]]]:
        """A split in its stored order, `size` examples at a time and the rest last: standardised inputs, and
        labels.
        """
        labels = self.labels[split]
        with closing(self.stored(split, torch.arange(len(labels)), size)) as parts:
            for stored, of_part in zip(parts, torch.split(labels, size), strict=True):
                yield self.dataset.prepare(stored), of_part

    @abstractmethod
    def stored(
        self, split: SplitName, order: Int[Tensor, "*seed example"], size: int
    ) -> Generator[Tensor, None, None]:
        """Inputs of a split as they are stored (*seed, batch, *shape), in a given order, `size` examples at a
        time, on the device.
        """


@dataclass(frozen=True)
class ResidentBatches(Batches):
    """All splits lie on the device."""

    def stored(
        self, split: SplitName, order: Int[Tensor, "*seed example"], size: int
    ) -> Generator[Tensor, None, None]:
        """Gathered on the device, when asked for."""
        for examples in cut(order.to(self.device), size):
            yield self.dataset.splits[split].take(examples)


@dataclass(frozen=True)
class StreamedBatches(Batches):
    """The splits stay in memory or in their files; a thread brings the next batches while one is computed
    with.
    """

    def stored(
        self, split: SplitName, order: Int[Tensor, "*seed example"], size: int
    ) -> Generator[Tensor, None, None]:
        """Gathered up to `AHEAD` batches before they are asked for. An error of the thread is raised here;
        the thread ends with the iterator, also where that is closed early.
        """
        side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        under_way: deque[Future[Moved]] = deque()
        thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        try:
            for examples in cut(order, size):
                under_way.append(thread.submit(move, self.dataset.splits[split], examples, side))
                if len(under_way) > AHEAD:
                    yield under_way.popleft().result().received()
            while under_way:
                yield under_way.popleft().result().received()
        finally:
            thread.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Moved:
    """Inputs on their way to a CUDA device, complete when `copied` has happened; or in memory, with no way to
    go.
    """

    inputs: Tensor
    copied: torch.cuda.Event | None

    def received(self) -> Tensor:
        """The inputs, for the current stream: it waits for the copy, the host does not."""
        if self.copied is not None:
            current = torch.cuda.current_stream(self.inputs.device)
            current.wait_event(self.copied)
            self.inputs.record_stream(
                current
            )  # or the side stream would take the memory back while this one reads
        return self.inputs


def move(split: Split, examples: Int[Tensor, "*seed batch"], side: torch.cuda.Stream | None) -> Moved:
    """Gather examples; where there is a side stream, into pinned memory and from there to its device."""
    gathered = torch.empty(
        *examples.shape, *split.stored.shape[1:], dtype=split.stored.dtype, pin_memory=side is not None
    )
    split.take(examples, gathered)
    if side is None:
        return Moved(gathered, None)
    with torch.cuda.stream(side):
        return Moved(gathered.to(side.device, non_blocking=True), side.record_event())


def cut(order: Int[Tensor, "*seed example"], size: int) -> Iterator[Int[Tensor, "*seed batch"]]:
    """An order in parts of `size`, the rest last."""
    return (order[..., first : first + size] for first in range(0, order.shape[-1], size))


def takes(dataset: Dataset, device: torch.device) -> int:
    """Bytes of inputs that would have to be moved to a device: all to a GPU, memory-mapped ones to a
    CPU.
    """
    splits = [split for split in dataset.splits.values() if device.type != "cpu" or split.rows is not None]
    return sum(
        len(split.labels) * math.prod(split.stored.shape[1:]) * split.stored.element_size()
        for split in splits
    )


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of a CPU whose system does not report it, all memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
