"""Network: whether an architecture takes a task's inputs, returns logits, learns, and how it would be
trained.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import chain
from math import isfinite, log
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lscal import Temperature
from sweeps.data.dataset import IGNORED, Dataset
from sweeps.data.readers.examples import listed
from sweeps.devices import pick_device
from sweeps.engines import engine_for
from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.preflight.finding import Finding
from sweeps.protocol.pilot import SEEDS, finalists, most_confirm_seeds
from sweeps.site import Site
from sweeps.task import Task
from sweeps.terminal import duration
from sweeps.training.autotune import doubt_of, kind_of
from sweeps.training.engine import Engine
from sweeps.training.execution import network as fresh
from sweeps.training.export import NotExportable, calibrated_model, exported
from sweeps.training.population import initialised

BATCH = 32
STEPS = 20
"""On one batch: a network that can learn at all begins to memorise it."""
OURS = Path(__file__).parents[1]
UNCHANGED = Temperature(torch.tensor(1.0, dtype=torch.float64), torch.tensor(True))
CANNOT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that a user-supplied network may raise."""
CLOSE = 1e-3
BEYOND = 0.01
"""How far outside of [0, 1] a number has to be for it to have left."""
SCALES = (-1.0, 10.0, -10.0, 1e3, -1e3)
"""Inputs are multiplied by them to look for outputs beyond [0, 1]."""
PUSHES = tuple(0.02 * 2.0**step for step in range(10))
"""Steps of each parameter, 20 in all: those of a last layer are enough to take its outputs out of [0, 1] in
either direction.
"""
HARDLY, DIVERGED = 0.98, 2.0
"""Shares of the loss before training."""
LONG = 6 * 3600.0
"""Seconds."""
FAR_FROM_EVEN = 2.0
"""A loss at the start that is so many times log K."""


def refusal(task: Task, dataset: Dataset) -> Finding | None:
    """Why a network cannot be trained at all, or would be trained to mislead; None where nothing of the kind
    is found.

    A few forward passes; where fresh outputs lie in [0, 1], which they may do by chance, as many steps as it
    takes to decide.
    """
    try:
        module = built(task, dataset, 0)
        module.eval()
        inputs, labels = batch_of(dataset)
        with torch.no_grad():
            logits = module(inputs)
            found = shape(logits, labels, len(dataset.classes)) or alone(module, inputs, logits)
        return found or probabilities(
            partial(evaluated, task, dataset), inputs, logits, scalable=not dataset.vocabulary
        )
    except CANNOT as error:
        return Finding(
            "wrong",
            "network",
            f"{task.architecture} cannot take inputs of shape {dataset.shape}: {sentence_of(error)}",
        )


def built(task: Task, dataset: Dataset, seed: int) -> nn.Module:
    """A fresh network, drawn under a seed."""
    with torch.random.fork_rng(devices=[]):
        return initialised(partial(fresh, task, dataset), seed)


def batch_of(dataset: Dataset) -> tuple[Tensor, Int[Tensor, "example *position"]]:
    """The first examples of *train* as the network sees them, with their labels."""
    split = dataset.splits["train"]
    rows = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[:BATCH]
    return dataset.prepare(split.take(rows)), split.labels[rows]


def sentence_of(error: BaseException) -> str:
    """An error in a sentence, with the line of the user's code that raised it."""
    message = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    frames = [
        one
        for one in traceback.extract_tb(error.__traceback__)
        if not one.filename.startswith(str(OURS)) and "site-packages" not in one.filename
    ]
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {message}{place}"


def shape(logits: object, labels: Int[Tensor, "example *position"], classes: int) -> Finding | None:
    """Whether there is one number for each example and class."""
    wanted = (*labels.shape, classes)
    if not isinstance(logits, Tensor):
        text = (
            f"it returns {type(logits).__name__}; wanted a tensor of logits of shape {wanted}. Return the"
            " logits alone"
        )
        return Finding("wrong", "output", text)
    if tuple(logits.shape) != wanted:
        hint = (
            f" The last layer has {logits.shape[-1]} outputs; wanted {classes}"
            if logits.ndim == len(wanted)
            else ""
        )
        if tuple(logits.shape) == wanted[:-1] or (logits.ndim == 2 and logits.shape[1] == 1):
            hint = " For two classes, wanted two logits instead of one"
        return Finding(
            "wrong",
            "output",
            f"for {len(labels)} examples and {classes} classes it has shape {tuple(logits.shape)}; wanted"
            f" {wanted}.{hint}",
        )
    if not logits.isfinite().all():
        return Finding("wrong", "output", "a fresh network returns NaN or infinite numbers")
    return None


def evaluated(task: Task, dataset: Dataset) -> nn.Module:
    """A fresh network in evaluation mode, always the same one."""
    return built(task, dataset, 0).eval()


def probabilities(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    logits: Float[Tensor, "example *position class"],
    *,
    scalable: bool,
) -> Finding | None:
    """Whether a softmax, a sigmoid or the like is at the end: outputs that stay in [0, 1] whatever the
    inputs and the weights.

    Fresh logits of a network with a linear layer at its end lie there by chance, in one of ten narrow deep
    ones with two classes. So outputs for inputs of other scales (where they are numbers), and then for
    weights that were moved to push outputs down, and up, are looked at until some are outside. Outputs that
    no step moves prove nothing.
    """
    by_inputs: list[Tensor] = []
    by_steps: list[Tensor] = []
    probes = chain(pushed(build, inputs, upwards=False), pushed(build, inputs, upwards=True))
    for seen, probe in ((by_inputs, chain([logits], scaled(build, inputs, scalable))), (by_steps, probes)):
        for outputs in probe:
            if not outputs.isfinite().all():  # no proof of anything: a sigmoid of NaN is NaN as well
                continue
            if outputs.min() < -BEYOND or outputs.max() > 1 + BEYOND:
                return None
            seen.append(outputs)
    if all((outputs - logits).abs().max() <= CLOSE for outputs in by_steps or by_inputs):
        return None
    seen = [*by_inputs, *by_steps]
    if all(torch.allclose(outputs.sum(-1), torch.ones(()), atol=CLOSE) for outputs in seen):
        text = (
            "numbers between 0 and 1 that sum to 1: a softmax is at the end. The loss has one itself; return"
            " the logits before it"
        )
    else:
        text = (
            "all numbers are between 0 and 1, whatever the inputs and the weights: a sigmoid is at the end?"
            " Return the logits before it"
        )
    return Finding("wrong", "output", text)


def scaled(build: Callable[[], nn.Module], inputs: Tensor, scalable: bool) -> Iterator[Tensor]:
    """Outputs for inputs of other scales; none for token ids."""
    module = build()
    for scale in SCALES if scalable else ():
        with torch.no_grad():
            yield module(scale * inputs)


def pushed(build: Callable[[], nn.Module], inputs: Tensor, *, upwards: bool) -> Iterator[Tensor]:
    """Outputs while every parameter takes steps that raise the largest output of each example, or lower the
    smallest.

    Steps are of one size, by the sign of the gradient, and grow: neither the scale of the weights nor a flat
    activation at the end holds them up.
    """
    module = build()
    trained = [one for one in module.parameters() if one.requires_grad]
    for size in PUSHES if trained else ():
        outputs = module(inputs)
        outputs = outputs.amax(-1) if upwards else -outputs.amin(-1)
        if not outputs.requires_grad:
            return
        gradients = torch.autograd.grad(outputs.sum(), trained, allow_unused=True)
        with torch.no_grad():
            for one, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    one.add_(size * gradient.nan_to_num().sign())
            yield module(inputs)


def alone(
    module: nn.Module, inputs: Tensor, logits: Float[Tensor, "example *position class"]
) -> Finding | None:
    """Whether the output for an example depends on the others in the batch, in evaluation mode, or on
    chance.

    Numbers are close where they differ by less than a thousandth of the largest, so that a small one beside
    large ones, which is rounded as they are, makes no difference. The other examples are replaced by known
    ones: the batch keeps its size.
    """
    near = CLOSE * max(1.0, float(logits.abs().max()))
    if (module(inputs) - logits).abs().max() > near:
        return Finding(
            "wrong", "output", "two evaluations of the same inputs differ: there is chance in evaluation mode"
        )
    half = (len(inputs) + 1) // 2
    among_others = module(torch.cat([inputs[:half], inputs[:half]])[: len(inputs)])
    if (among_others - logits)[:half].abs().max() > near:
        text = (
            "the output of an example depends on the others in its batch, in evaluation mode (attention or"
            " normalisation over the examples?)"
        )
        return Finding("wrong", "output", text)
    return None


def findings(plan: Plan, site: Site, task: Task, dataset: Dataset) -> Iterator[Finding]:
    """All that is found; where it cannot be trained at all, why, and no more."""
    if why := refusal(task, dataset):
        yield why
        return
    module = built(task, dataset, 0)
    inputs, labels = batch_of(dataset)
    if not any(one.requires_grad for one in module.parameters()):
        yield Finding("wrong", "parameters", "none is trained: all are frozen, or the network has none")
        return
    yield size(module, dataset)
    if task.start_from is None and same_start(module, built(task, dataset, 1)):
        text = (
            "two seeds begin with the same weights: seeds differ by the order of the data alone. Right for"
            " trained weights, wrong otherwise"
        )
        yield Finding("doubt", "seeds", text)
    found = training(task, module, inputs, labels, dataset)
    yield from found
    if any(one.level == "wrong" for one in found):
        return
    yield from speed(plan, site, task, dataset)
    yield export(task, dataset)


def size(module: nn.Module, dataset: Dataset) -> Finding:
    """How many parameters are trained."""
    trained = sum(one.numel() for one in module.parameters() if one.requires_grad)
    frozen = sum(one.numel() for one in module.parameters()) - trained
    rest = f", {frozen} are frozen" if frozen else ""
    return Finding(
        "fine",
        "parameters",
        f"{trained}{rest}; {trained / len(dataset.splits['train'].labels):.0f} for each training example",
    )


def cross_entropy(
    module: nn.Module, inputs: Tensor, labels: Int[Tensor, "example *position"]
) -> Float[Tensor, ""]:
    """The mean loss at ε = 0."""
    known = labels != IGNORED
    return functional.cross_entropy(module(inputs)[known], labels[known])


def same_start(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def training(
    task: Task, module: nn.Module, inputs: Tensor, labels: Tensor, dataset: Dataset
) -> list[Finding]:
    """The loss of a fresh network, where its gradient goes in STEPS steps on one batch, and how far the loss
    falls.
    """
    module.train()
    trained = {name: one for name, one in module.named_parameters() if one.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), task.recipe.learning_rate, weight_decay=0)
    losses, silent = [], set(trained)
    for _ in range(STEPS + 1):
        optimiser.zero_grad()
        loss = cross_entropy(module, inputs, labels)
        if not loss.requires_grad:
            break
        loss.backward()  # type: ignore[no-untyped-call]
        silent -= {name for name in silent if (gradient := trained[name].grad) is not None and gradient.any()}
        losses.append(loss.item())
        optimiser.step()
    if len(silent) == len(trained):
        text = (
            "it reaches no parameter: something cuts the output off from them (.detach(), .data,"
            " torch.no_grad, argmax?)"
        )
        return [Finding("wrong", "gradient", text)]
    return [
        first_loss(losses[0], len(dataset.classes)),
        gradient_of(silent, trained),
        fall(task, losses, len(inputs)),
    ]


def first_loss(loss: float, classes: int) -> Finding:
    """The loss before training, beside that of a guess."""
    text = f"{loss:.2f} before training; a guess has log {classes} = {log(classes):.2f}"
    if loss > FAR_FROM_EVEN * log(classes) + 1:
        return Finding("doubt", "loss", f"{text}: the last layer begins too large")
    return Finding("fine", "loss", text)


def gradient_of(silent: Set[str], trained: Mapping[str, nn.Parameter]) -> Finding:
    """Whether there are parameters that no gradient reaches."""
    if silent:
        names = listed([name for name in trained if name in silent], 4)
        return Finding(
            "doubt",
            "gradient",
            f"it does not reach {len(silent)} of {len(trained)} parameters: {names}. They are never trained",
        )
    return Finding("fine", "gradient", "it reaches every parameter")


def fall(task: Task, losses: Sequence[float], examples: int) -> Finding:
    """Whether the loss of one batch falls."""
    first, last = losses[0], min(losses[-3:])
    rate = f"at the recipe's learning rate of {task.recipe.learning_rate:g}"
    text = f"the loss on {examples} examples goes from {first:.2f} to {last:.2f} in {STEPS} steps {rate}"
    if not isfinite(losses[-1]) or last > DIVERGED * first:
        lower = f"--learning-rate {task.recipe.learning_rate / 10:g}"
        return Finding(
            "wrong", "learning", f"{text}: it diverges. Give the recipe a lower learning rate: {lower}"
        )
    if last > HARDLY * first:
        return Finding(
            "doubt",
            "learning",
            f"{text}, hardly lower: the rate is very low, or the network does not look at its inputs",
        )
    return Finding("fine", "learning", text)


def speed(plan: Plan, site: Site, task: Task, dataset: Dataset) -> Iterator[Finding]:
    """How members are trained, and how long the sweep takes."""
    device = pick_device(site.device)
    try:
        engine = engine_for(replace(plan, smoothing=("uniform",)), task, dataset, site.device)
    except WrongInput as error:
        yield Finding("wrong", "training", str(error))
        return
    execution = engine.execution
    if execution.kind == "fused":
        yield Finding("fine", "fusing", f"members are trained together: {execution}")
    elif kind_of(built(task, dataset, 0)) == "fused" and (why := doubt(engine)):
        yield Finding(
            "doubt",
            "fusing",
            f"members are trained one after another: they cannot be fused, as {why}. That is slower, not"
            " wrong",
        )
    else:
        yield Finding(
            "fine", "fusing", "members are trained one after another, which is faster for such a network"
        )
    screened, confirmed = (
        plan.trials * plan.seeds,
        (1 + finalists(plan)) * (plan.confirm_seeds or most_confirm_seeds(plan)),
    )
    whole = (screened + confirmed + 2 * SEEDS) * task.recipe.epochs * execution.seconds
    yield Finding(
        "fine" if whole < LONG else "doubt",
        "time",
        f"{execution.seconds:.3g} s a member and epoch on {device}, {task.recipe.epochs} epochs: a sweep of"
        f" {plan.trials} trials × {plan.seeds} seeds takes about {duration(whole)} or less",
    )


def doubt(engine: Engine) -> str:
    """Why members cannot be trained as one population; "" where they can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of operators that vmap maps slowly
        return doubt_of(engine, replace(engine.execution, kind="fused")).partition(". We don't support")[0]


def first_line(text: str) -> str:
    """The first line of an error."""
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else "no reason is known"


def export(task: Task, dataset: Dataset) -> Finding:
    """Whether torch.export takes it."""
    module = built(task, dataset, 0)
    weights = {name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]}
    try:
        exported(calibrated_model(task, dataset, weights, UNCHANGED), dataset, {})
    except (NotExportable, *CANNOT) as error:
        return Finding(
            "doubt",
            "export",
            f"{first_line(str(error))}. The sweep works; the model in MLflow is then weights alone",
        )
    return Finding(
        "fine", "export", "torch.export takes it: the recommended model can be served without its code"
    )
