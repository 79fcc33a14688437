"""Translation: what a trained network makes of sources, by beam search, and how near that comes to the
references, in BLEU.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sweeps.data.dataset import Dataset
from sweeps.errors import WrongInput

BEAM = 4
"""Translations that are followed at once."""
PENALTY = 0.6
"""Exponent of the length by which a score is divided (Wu et al. 2016, "Google's Neural Machine Translation
System", section 7).
"""
BEGIN, END = "<begin>", "<end>"
"""The tokens around a translation, in the vocabulary of a data set."""
AT_ONCE = 125
"""Sources translated at a time."""
ORDERS = 4
"""The longest n-grams of BLEU."""


@runtime_checkable
class Translates(Protocol):
    """A network that translates: see `architectures.translator`."""

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of a source, and which of its positions there are."""

    def sources(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a source for each layer."""

    def step(
        self,
        tokens: Tensor,
        place: int,
        source: Sequence[tuple[Tensor, Tensor]],
        there: Tensor,
        past: Sequence[tuple[Tensor, Tensor]] | None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits of the token behind `tokens`, and the past of the next step."""


@torch.no_grad()
def translate(
    network: Translates, source: Int[Tensor, "example position"], begin: int, end: int, beam: int = BEAM
) -> list[list[int]]:
    """The best translation of each source, as token ids without `begin` and `end`; at most as long as sources
    are.

    The `beam` likeliest beginnings are followed. Of those at the end, the one of highest log p / ((5 +
    length) / 6)^PENALTY is taken.
    """
    examples, most = source.shape
    encoded, there = network.encode(source)
    memory = [
        (keys.repeat_interleave(beam, 0), values.repeat_interleave(beam, 0))
        for keys, values in network.sources(encoded)
    ]
    there = there.repeat_interleave(beam, 0)
    tokens = torch.full((examples, beam, 1), begin, dtype=torch.int64, device=source.device)
    scores = torch.full((examples, beam), -torch.inf, device=source.device)
    scores[:, 0] = 0.0  # all beginnings are the same one at first
    done = torch.zeros(examples, beam, dtype=torch.bool, device=source.device)
    past = None
    for place in range(most - 1):
        logits, past = network.step(tokens[:, :, -1].flatten(), place, memory, there, past)
        gains = logits.float().log_softmax(-1).view(examples, beam, -1)
        classes = gains.shape[-1]
        only_end = torch.full((classes,), -torch.inf, device=source.device).index_fill(
            0, torch.tensor(end, device=source.device), 0.0
        )
        gains = torch.where(done[..., None], only_end, gains)
        scores, best = (scores[..., None] + gains).flatten(1).topk(beam, dim=1)
        parents = best // classes
        rows = (parents + beam * torch.arange(examples, device=source.device)[:, None]).flatten()
        past = [(keys[rows], values[rows]) for keys, values in past]
        tokens = torch.cat(
            [tokens.flatten(0, 1)[rows].view(examples, beam, -1), (best % classes)[..., None]], 2
        )
        done = tokens[:, :, -1] == end
        if done.all():
            break
    lengths = (tokens[:, :, 1:] != end).sum(2)
    chosen = (scores / ((5 + lengths) / 6) ** PENALTY).argmax(1)
    found = tokens[torch.arange(examples, device=source.device), chosen, 1:]
    return [[token for token in row if token != end] for row in found.tolist()]


def translating(network: nn.Module, dataset: Dataset) -> Translates:
    """The network as one that translates. Errors: WrongInput where it cannot, or where sacrebleu is not
    installed to judge it.
    """
    sacrebleu()
    if not isinstance(network, Translates):
        raise WrongInput(
            f"{dataset.name} is a translation, and a network for it needs the methods encode, sources and"
            " step beside forward; see sweeps/models/builtin/translator.py."
        )
    return network


def statistics_of(network: nn.Module, dataset: Dataset) -> Float[Tensor, "sentence statistic"]:
    """What BLEU is made of, for each sentence of *test*, from a network's translations. Errors: WrongInput
    where it cannot translate.
    """
    translator = translating(network.eval(), dataset)
    split = dataset.splits["test"]
    device = next(network.parameters()).device
    begin, end = (dataset.vocabulary.index(piece) for piece in (BEGIN, END))
    found: list[str] = []
    for first in range(0, len(split.labels), AT_ONCE):
        rows = torch.arange(first, min(first + AT_ONCE, len(split.labels)), device=split.labels.device)
        source = dataset.prepare(split.take(rows))[:, 0].to(device)
        found.extend(
            text_of([dataset.vocabulary[piece] for piece in own])
            for own in translate(translator, source, begin, end)
        )
    return sentence_statistics(found, split.shown)


def text_of(pieces: Sequence[str]) -> str:
    """The text of some pieces: `▁` begins a word."""
    return "".join(pieces).replace("▁", " ").strip()


def sentence_statistics(
    translations: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "sentence statistic"]:
    """The numbers of which BLEU is made, of each sentence: both lengths, then matches and n-grams of orders 1
    to 4, by sacrebleu.

    Errors: WrongInput where sacrebleu is not installed.
    """
    metric = sacrebleu()
    scores = [
        metric.sentence_score(translation, [reference])
        for translation, reference in zip(translations, references, strict=True)
    ]
    return torch.tensor(
        [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], dtype=torch.float64
    )


def bleu(statistics: Float[Tensor, "*lead statistic"]) -> Float[Tensor, "*lead"]:
    """BLEU of a corpus from its summed statistics, as a share: the geometric mean of the n-gram precisions
    times the brevity penalty.

    Range: 0 to 1. Direction: higher is better. 0 where there is no match of some order. Source: Papineni et
    al. 2002, section 2.3.
    """
    ours, theirs = statistics[..., 0], statistics[..., 1]
    matches, totals = statistics[..., 2 : 2 + ORDERS], statistics[..., 2 + ORDERS :]
    precision = (matches / totals.clamp(min=1)).log().mean(-1).exp()
    brevity = torch.where(ours < theirs, 1 - theirs / ours.clamp(min=1), 0.0).exp()
    return precision * brevity


def sacrebleu() -> Any:
    """sacrebleu's BLEU, with its own tokenisation 13a. Errors: WrongInput where it is not installed."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise WrongInput(
            "BLEU needs the package sacrebleu. Install it: pip install 'lscal[translation]'"
        ) from error
    return BLEU(effective_order=True)
