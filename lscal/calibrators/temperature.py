"""Temperature scaling (Guo et al. 2017, section 4.2)."""

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.predictions import check

LOWEST, HIGHEST = 0.01, 1000.0
SMALLEST_SAMPLE, GROWTH = 512, 8
STEPS, LONGEST_STEP = 60, 2.0
SERIAL = 32_767
"""Elements that torch's CPU kernels never split over threads: below that, starting threads costs more than
they gain.
"""
GPU_CHUNK = 1 << 21
NARROW = 40
"""Below this many classes, sums over classes are faster on transposed chunks (measured: break-even at 32 to
48).
"""
MASKED = -1e9
"""Stands for -inf: 2 to its power is 0 as well, and 0 times it is 0."""


@final
@dataclass(frozen=True, eq=False)
class Temperature(Calibrator):
    """Divides logits by T. T above 1 softens (the model was overconfident), below 1 sharpens.

    Attributes:
        value: T of each member, within [0.01, 1000].
        converged: False where no temperature in that range is a minimum. The value is then the bound towards
            that the NLL falls, or 1 where it is the same for all; where every example is right, that of
            cautious targets, see `cautious`.
    """

    method: ClassVar[str] = "temperature"
    value: Float[Tensor, "*member"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        if self.value.shape != self.converged.shape:
            shapes = f"value {tuple(self.value.shape)} and converged {tuple(self.converged.shape)}"
            raise ValueError(f"temperature has the shapes {shapes}; wanted the same for both")
        if self.converged.dtype != torch.bool:
            raise ValueError("temperature has numbers in converged; allowed are true and false")
        if not bool(((self.value >= LOWEST) & (self.value <= HIGHEST)).all()):
            raise ValueError(f"temperature has a value outside of {LOWEST} to {HIGHEST}")

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "Temperature":
        """The T of least mean NLL of each member, to a relative error of 1e-6 for float32 and narrower
        logits, 1e-9 for float64.

        There the mean logit that softmax(z/T) expects is the mean logit of the labels. Both are matched by a
        safeguarded Newton method of fourth order on s = log(1/T), first on a few examples, then on growing
        samples, then on all: a full pass or two decides. The root is kept bracketed, so under- and
        overconfident models are fitted alike, which the usual LBFGS recipe does not do. Examples whose label
        is masked (-inf) have the same NLL at every T and are left out. Memory: a few MB beside the input.
        """
        labels = labels.long()
        check(logits, labels)
        members = logits.shape[:-2]
        found = [solve(logits[index].detach(), labels) for index in product(*map(range, members))]
        value = torch.tensor([math.exp(-s) for s, _ in found], dtype=torch.float64, device=logits.device)
        converged = torch.tensor([inside for _, inside in found], dtype=torch.bool, device=logits.device)
        return cls(value.clamp(LOWEST, HIGHEST).reshape(members), converged.reshape(members))

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        return logits.to(torch.float64) / self.value.to(logits.device).unsqueeze(-1).unsqueeze(-1)


def solve(logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]) -> tuple[float, bool]:
    """s = log(1/T) of one model, and whether it is a minimum inside the bounds.

    Samples are every 64th row, then every 8th, so that data sorted by class are sampled evenly. They only say
    where to start.
    """
    s = 0.0
    stride = GROWTH ** int(math.log(max(1.0, len(labels) / SMALLEST_SAMPLE), GROWTH))
    while stride > 1:
        guess, inside = search(logits[::stride], labels[::stride], s, tolerance=1e-4)
        s = guess if inside else s
        stride //= GROWTH
    return search(logits, labels, s, tolerance=1e-11 if logits.dtype == torch.float64 else 4e-7)


def search(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"], s: float, tolerance: float
) -> tuple[float, bool]:
    """The s at which expected and observed logit agree, to `tolerance`, from a start; whether it lies inside
    the bounds.
    """
    bottom, top = -math.log(HIGHEST), -math.log(LOWEST)
    low, high = -math.inf, math.inf
    for _ in range(STEPS):
        at = cumulants(logits, labels, math.exp(s))
        if at.observed == 0:
            # every label has the largest logit of its row; where no other logit is lower, T changes nothing
            # and stays 1
            return (cautious(logits, labels) if at.expected < 0 else 0.0), False
        low, high = (low, s) if at.expected > at.observed else (s, high)
        step, exact = step_from(at, tolerance)
        proposal = min(max(s + step, bottom), top)
        if proposal != s and not low < proposal < high:
            proposal, exact = (low + high) / 2, high - low < tolerance
        exact, s = exact or proposal == s, proposal
        if exact:
            return s, bottom < s < top
    return s, False


def cautious(logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]) -> float:
    """s where every one of N examples is right, so that the NLL falls for ever: its minimum for targets that
    leave 1/(N+2) to all classes alike.

    N right answers do not prove that there are no wrong ones; T at its bound would make the first of them
    cost hundreds of nats. By bisection. Source: Platt 1999, "Probabilistic Outputs for Support Vector
    Machines", section 2.2.
    """
    possible = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) > -torch.inf
    z = logits[possible].to(torch.float64)
    below = z - z.amax(-1, keepdim=True)
    there = below > -torch.inf
    finite = below.where(there, 0.0)
    target = float((finite.sum(-1) / there.sum(-1)).mean()) / (len(z) + 2)
    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    while high - low > 1e-9:
        middle = (low + high) / 2
        expected = float(((below * math.exp(middle)).softmax(-1) * finite).sum(-1).mean())
        low, high = (middle, high) if expected < target else (low, middle)
    return (low + high) / 2


class Cumulants(NamedTuple):
    """Of u = (z - max z)/T under softmax(u), each a mean over examples, all in units of 1.

    `expected` is the mean of u, `observed` the u of the label; both at most 0. The slope of the NLL in s is
    their difference; the further cumulants are its derivatives in 1/T.
    """

    expected: float
    observed: float
    variance: float
    third: float
    fourth: float


def step_from(at: Cumulants, tolerance: float) -> tuple[float, bool]:
    """The change of s towards the root, and whether its error is below `tolerance`.

    Near the root: the inverse of the slope's Taylor polynomial in the relative change of 1/T, to third order
    (Chebyshev; the error is of fourth order). Far from it: Newton's step on log(expected/observed), which is
    nearly linear both for spread-out logits, where `expected` falls as T, and for saturated ones, where it
    falls exponentially.
    """
    if at.variance <= 0 or at.expected == 0:  # softmax is one-hot in every row
        return math.copysign(LONGEST_STEP, at.observed - at.expected), False
    newton = (at.observed - at.expected) / at.variance
    second = newton * at.third / (2 * at.variance)
    third = 2 * second * second - newton * newton * at.fourth / (
        6 * at.variance
    )  # ** raises where * overflows to inf
    if abs(newton) < 0.3 and abs(second) + abs(third) < 0.5:
        exact = abs(newton) < tolerance**0.25 and abs(newton * third) < tolerance**0.75
        return math.log1p(newton * (1 - second + third)), exact
    newton = math.log(at.expected / at.observed) * -at.expected / at.variance
    return math.copysign(min(math.log1p(abs(newton)), LONGEST_STEP), newton), False


def cumulants(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"], beta: float
) -> Cumulants:
    """One pass over the logits, in chunks that stay in the cache. β = 1/T."""
    elements = SERIAL if logits.device.type == "cpu" else GPU_CHUNK
    block, chunk = elements // 6, max(1, elements // logits.shape[1])
    bits = beta / math.log(2)
    totals = torch.zeros(5, dtype=torch.float64, device=logits.device)
    for rows, answers in zip(torch.split(logits, block), torch.split(labels, block), strict=True):
        largest, *sums = torch.cat([power_sums(z, bits) for z in torch.split(rows, chunk)], 1)
        at_label = rows.gather(1, answers.unsqueeze(1)).squeeze(1).to(largest.dtype)
        parts = torch.stack([(at_label - largest) * bits, *sums]).to(torch.float64)
        if parts[0].min() == -torch.inf:
            parts = parts[:, parts[0] > -torch.inf]
        m1, m2, m3, m4 = parts[2:] / parts[1]
        square = m1 * m1
        variance = m2 - square
        third = m3 - m1 * (m2 + 2 * variance)
        fourth = m4 - 4 * m1 * m3 - 3 * m2 * m2 + 6 * square * (m2 + variance)
        totals += torch.stack([m1, parts[0], variance, third, fourth]).sum(1)
    bit = math.log(2)
    units = (bit, bit, bit**2, bit**3, bit**4)
    return Cumulants(
        *(total * unit / len(labels) for total, unit in zip(totals.tolist(), units, strict=True))
    )


def power_sums(logits: Float[Tensor, "example class"], bits: float) -> Float[Tensor, "6 example"]:
    """max z of each row, then with v = (z - max z)·bits: Σ 2^v·v^j for j = 0 to 4.

    Base 2 since torch's exp2 takes half the time of its exp, which also starts threads from 2048 elements on.
    """
    z = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    classes = 1
    if z.shape[1] < NARROW:
        z, classes = z.T.contiguous(), 0
    largest = z.amax(classes, keepdim=True)
    v = torch.sub(z, largest).mul_(bits).clamp_(min=MASKED)
    weight = v.exp2()
    sums = [largest.squeeze(classes), weight.sum(classes)]
    sums += [weight.mul_(v).sum(classes) for _ in range(4)]
    return torch.stack(sums)
