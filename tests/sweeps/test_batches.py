import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import SPLITS, RawData, Split
from sweeps.data.load import load
from sweeps.errors import WrongInput
from sweeps.task import Recipe
from sweeps.training.augmentation import Augmentation
from sweeps.training.batches import AHEAD, Batches, ResidentBatches, StreamedBatches, takes
from sweeps.training.randomness import PURPOSES, stream

CPU = torch.device("cpu")
AUGMENT = ("flip", "translate:2", "cutout:3")
STREAMED = -1


def source(examples=700, shape=(3, 6, 5), dtype=np.uint8):
    generator = np.random.default_rng(8)
    inputs = generator.integers(3, 250, (examples, *shape)).astype(dtype)
    return RawData(inputs, generator.integers(0, 4, examples), ("a", "b", "c", "d"), 100, "drawn at random")


@pytest.fixture
def pets(monkeypatch):
    monkeypatch.setitem(DATASETS, "pets", lambda _: source())
    return load("pets")


@pytest.fixture
def mapped(monkeypatch, tmp_path):
    """The same, in a file."""
    np.save(tmp_path / "pets.npy", source().inputs)
    inputs = np.load(tmp_path / "pets.npy", mmap_mode="r")
    monkeypatch.setitem(DATASETS, "mapped", lambda _: replace(source(), inputs=inputs))
    return load("mapped")


def equal(ours, theirs):
    return all(
        torch.equal(a, b)
        for left, right in zip(ours, theirs, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("limit", [None, STREAMED])
@pytest.mark.parametrize("augment", [(), AUGMENT])
def test_batches_are_those_of_a_plain_loop(pets, limit, augment):
    batches = Batches.of(pets, Recipe(batch_size=64, augment=augment), CPU, limit)
    split = pets.splits["train"]
    examples = len(split.labels)
    found = list(batches.epoch([12, 5], 3))
    assert len(found) == batches.steps == examples // 64
    for row, seed in enumerate((12, 5)):
        order = torch.randperm(examples, generator=stream(seed, 3, "order")).tolist()
        augmentation = Augmentation.parse(AUGMENT, pets.shape)
        choices = augmentation.draw([seed], 3, examples)
        for step, (inputs, labels, rows) in enumerate(found):
            assert inputs.dtype == torch.float32
            for place in range(64):
                example = order[step * 64 + place]
                assert rows[row, place] == example
                image = split.inputs[example].double()
                image = (image - torch.tensor(pets.mean)[:, None, None]) / torch.tensor(pets.deviation)[
                    :, None, None
                ]
                if augment:
                    image = augmentation(image[None, None].float(), choices[:, [example]])[0, 0].double()
                assert labels[row, place] == split.labels[example]
                torch.testing.assert_close(inputs[row, place].double(), image, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("augment", [(), AUGMENT])
def test_a_seed_gets_the_same_whichever_the_others_are(pets, augment):
    batches = Batches.of(pets, Recipe(batch_size=50, augment=augment), CPU)
    together = [tuple(part[1:2] for part in batch) for batch in batches.epoch([3, 8, 1], 2)]
    assert equal(batches.epoch([8], 2), together)
    assert not equal(batches.epoch([8], 1), together)


@pytest.mark.parametrize("augment", [(), AUGMENT])
def test_streamed_batches_are_bitwise_those_of_a_resident_feed(pets, mapped, augment):
    recipe = Recipe(batch_size=16, augment=augment)
    resident = Batches.of(pets, recipe, CPU)
    assert type(resident) is ResidentBatches
    for dataset in (pets, mapped):
        streamed = Batches.of(dataset, recipe, CPU, STREAMED)
        assert type(streamed) is StreamedBatches
        assert streamed.steps > 2 * AHEAD
        assert equal(streamed.epoch([2, 7], 1), resident.epoch([2, 7], 1))
        for split in SPLITS:
            assert equal(streamed.chunks(split, 13), resident.chunks(split, 13))


@pytest.mark.parametrize("limit", [None, STREAMED])
def test_chunks_are_the_split_in_order(pets, limit):
    batches = Batches.of(pets, Recipe(), CPU, limit)
    inputs, labels = zip(*batches.chunks("test", 30), strict=True)
    assert [len(part) for part in inputs] == [30, 30, 30, 10]
    assert torch.equal(torch.cat(inputs), pets.prepare(pets.splits["test"].inputs))
    assert torch.equal(torch.cat(labels), pets.splits["test"].labels)


def test_a_batch_larger_than_the_split_is_the_split(pets):
    batches = Batches.of(pets, Recipe(batch_size=10_000), CPU)
    ((inputs, labels, rows),) = batches.epoch([1], 0)
    assert batches.steps == 1
    assert (
        batches.batch
        == labels.shape[1]
        == rows.shape[1]
        == len(inputs[0])
        == len(pets.splits["train"].labels)
    )


def test_data_in_a_file_stay_there(mapped):
    streamed = Batches.of(mapped, Recipe(), CPU, STREAMED)
    assert {split.stored.data_ptr() for split in streamed.dataset.splits.values()} == {
        mapped.splits["train"].stored.data_ptr()
    }
    assert mapped.splits["train"].rows is not None


def test_the_limit_decides(pets, mapped):
    size = 700 * 3 * 6 * 5
    assert takes(mapped, CPU) == size
    assert type(Batches.of(mapped, Recipe(), CPU, size - 1)) is StreamedBatches
    assert type(Batches.of(mapped, Recipe(), CPU, size)) is ResidentBatches
    assert type(Batches.of(mapped, Recipe(), CPU)) is ResidentBatches
    assert takes(pets, CPU) == 0
    assert takes(pets, torch.device("cuda")) == size


@pytest.mark.parametrize("limit", [None, STREAMED])
def test_several_threads_take_from_one_feed(pets, limit):
    batches = Batches.of(pets, Recipe(batch_size=16, augment=AUGMENT), CPU, limit)
    alone = [list(batches.epoch([seed], 0)) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda seed: list(batches.epoch([seed], 0)), range(6)))
    assert all(equal(ours, theirs) for ours, theirs in zip(together, alone, strict=True))


@dataclass(frozen=True)
class Watched(Split):
    """A split that notes what was taken from it, and has a row that cannot be read."""

    taken: list[int] = field(default_factory=list)
    broken: int = -1

    def take(self, examples, out=None):
        if self.broken in examples:
            raise OSError("the disk is gone")
        self.taken.append(examples.numel())
        return super().take(examples, out)


def watched(dataset, broken=-1):
    train = dataset.splits["train"]
    return replace(
        dataset, splits={**dataset.splits, "train": Watched(train.stored, train.labels, broken=broken)}
    )


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_a_streamed_feed_works_a_little_ahead(pets):
    dataset = watched(pets)
    batches = Batches.of(dataset, Recipe(batch_size=16), CPU, STREAMED).epoch([0], 0)
    next(batches)
    deadline = time.monotonic() + 10
    while len(dataset.splits["train"].taken) <= AHEAD and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(dataset.splits["train"].taken) == AHEAD + 1
    assert len(feed_threads()) == 1
    batches.close()
    assert not feed_threads()
    assert len(dataset.splits["train"].taken) == AHEAD + 1


def test_the_thread_ends_when_the_consumer_fails(pets):
    batches = Batches.of(pets, Recipe(batch_size=16), CPU, STREAMED)

    def consume():
        for _ in batches.epoch([0], 0):
            raise KeyError("of the consumer")

    with pytest.raises(KeyError) as caught:
        consume()
    del caught
    assert not feed_threads()


def test_an_error_of_the_thread_reaches_the_consumer(pets):
    order = torch.randperm(len(pets.splits["train"].labels), generator=stream(4, 0, "order")).tolist()
    batches = Batches.of(watched(pets, broken=order[8 * 16]), Recipe(batch_size=16), CPU, STREAMED).epoch(
        [4], 0
    )
    for _ in range(8):
        next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not feed_threads()


def test_inputs_that_are_no_images(monkeypatch):
    monkeypatch.setitem(DATASETS, "rows", lambda _: source(shape=(11,), dtype=np.float32))
    rows = load("rows")
    ((inputs, _, _),) = Batches.of(rows, Recipe(batch_size=500), CPU).epoch([0], 0)
    assert inputs.shape == (1, 500, 11)
    assert inputs.mean().abs() < 1e-5
    with pytest.raises(WrongInput, match=r"augment is flip: for images"):
        Batches.of(rows, Recipe(augment=("flip",)), CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("augment", [(), AUGMENT])
def test_on_a_gpu(pets, mapped, augment):
    device = torch.device("cuda")
    recipe = Recipe(batch_size=16, augment=augment)
    resident = list(Batches.of(pets, recipe, device).epoch([2, 7], 1))
    assert equal(Batches.of(mapped, recipe, device, STREAMED).epoch([2, 7], 1), resident)
    for (ours, labels, _), (theirs, their_labels, _) in zip(
        resident, Batches.of(pets, recipe, CPU).epoch([2, 7], 1), strict=True
    ):
        assert torch.equal(labels.cpu(), their_labels)
        torch.testing.assert_close(ours.cpu(), theirs)


def test_seeds_epochs_and_purposes_draw_apart():
    drawn = [
        torch.randperm(50, generator=stream(seed, epoch, purpose)).tolist()
        for seed, epoch, purpose in ((0, 0, "order"), (1, 0, "order"), (0, 1, "order"), (0, 0, PURPOSES[-1]))
    ]
    assert len({tuple(one) for one in drawn}) == 4
    assert drawn[0] == torch.randperm(50, generator=stream(0, 0, "order")).tolist()
