"""CUDA graph of a training step."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

WARM_RUNS = 3
STREAMS = 8


class CudaGraph:
    """A function of tensors on a GPU, captured in a CUDA graph.

    The function may not wait for the device, and its shapes may not change. It runs `WARM_RUNS` times before
    it is captured, as libraries choose their kernels in the first runs: a caller whose function has effects
    restores its state afterwards. The result is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor):
        self.inputs = [value.clone() for value in inputs]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_RUNS):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self.graph, capture_error_mode="thread_local"
        ):  # streamed batches are copied meanwhile
            self.result = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result for inputs of the same shapes."""
        for own, value in zip(self.inputs, inputs, strict=True):
            own.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.result


def side_streams(device: torch.device, members: int) -> Iterator[AbstractContextManager[None]]:
    """A context for each member, in which its kernels go to one of `STREAMS` streams of a GPU; after the
    last, all have joined.

    Small models leave most of a GPU idle: inside a CUDA graph, streams become branches that run side by
    side.
    """
    if device.type != "cuda" or members == 1:
        yield from [nullcontext()] * members
        return
    main = torch.cuda.current_stream(device)
    sides = [torch.cuda.Stream(device) for _ in range(min(STREAMS, members))]  # type: ignore[no-untyped-call]
    for side in sides:
        side.wait_stream(main)
    for member in range(members):
        yield on(sides[member % len(sides)])
    for side in sides:
        main.wait_stream(side)


@contextmanager
def on(side: "torch.cuda.Stream") -> Iterator[None]:
    """Queue what happens inside on a stream."""
    with torch.cuda.stream(side):
        yield
