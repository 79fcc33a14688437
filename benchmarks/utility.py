"""What the coverage that is chosen on *calibrate* costs on fresh examples: beside the one that is cheapest
there, and reviewing everything.

    python -m benchmarks.utility [--task digits/mlp] [--groups 40] [--seeds 8] [--data-dir DIR]
    [--train-examples N] python -m benchmarks.utility --simulate [--draws 100]

Groups of members at ε = 0 are really trained, each with seeds of its own. A group's temperatures are fitted
on *calibrate* and its coverage is chosen there, as a sweep does; its cost is that on *test*. Prices are those
of a wrong decision and of a review, a right one costs nothing. All groups share the examples of both splits,
so they are not independent: `above` counts the groups that cost more on *test* than reviewing everything, and
says nothing of other examples. Hence the second table: the same examples of *calibrate* and *test* pooled,
and split anew for each group.

`--simulate` compares rules on simulated tasks whose risks are known: at the share u of least confidence the
error rate is floor + a·u^b, cut at 0.9, for the floors, powers and overall error rates of `FLOORS`, `POWERS`
and `ERRORS`. Eight seeds are wrong on the same examples, mostly: the share of them that is wrong on an
example has a beta distribution with this mean and a concentration of 0.2. The cost is the true one of what
was chosen.
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal import Predictions, Temperature
from sweeps.data.dataset import SplitName
from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.scoring import risks_of
from sweeps.settings import resolve
from sweeps.training.autotune import choose
from sweeps.workers.worker import member_of
from tracking.decision.prices import Prices, promised

PRICES = (10, 100, 1000)
FIRST_SEED = 20_000
SPLITS: tuple[SplitName, ...] = ("calibrate", "test")

Rule = Callable[[Prices, Sequence[float], int], float]
RULES: dict[str, Rule] = {
    "cheapest on calibrate": lambda prices, risks, _: prices.best_coverage(risks),
    "what calibrate promises": lambda prices, risks, examples: prices.best_coverage(risks, examples),
}
EVERYTHING = "review everything"

Logits = Float[Tensor, "seed example class"]
Labels = Int[Tensor, " example"]


def mean_risks(logits: Logits, labels: Labels, temperature: Temperature) -> list[float]:
    """The error rate among the 1 %, 2 %, …, 100 % most confident examples after temperature, mean over the
    seeds.
    """
    rows = risks_of(Predictions.from_logits(logits, labels).calibrated(temperature))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def costs(
    calibrate: tuple[Logits, Labels], test: tuple[Logits, Labels]
) -> dict[tuple[int, str], tuple[float, float]]:
    """By price and rule, the coverage a group chooses and its cost on *test* as a share of that of reviewing
    everything.
    """
    temperature = Temperature.fit(*calibrate)
    chosen, judged = mean_risks(*calibrate, temperature), mean_risks(*test, temperature)
    found = {}
    for wrong in PRICES:
        prices = Prices(wrong=wrong, review=1.0)
        for name, rule in RULES.items():
            coverage = rule(prices, chosen, len(calibrate[1]))
            found[wrong, name] = coverage, prices.cost_at(judged, coverage)
        found[wrong, EVERYTHING] = 0.0, prices.review
    return found


def table(groups: Sequence[dict[tuple[int, str], tuple[float, float]]]) -> str:
    """Means over the groups, as Markdown."""
    lines = [
        (
            "| prices | rule | decided without a review % | cost / review | the dearest group | groups above"
            " review |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for wrong, name in groups[0]:
        coverages, found = zip(*(group[wrong, name] for group in groups), strict=True)
        above = sum(cost > 1 for cost in found)
        mean = sum(found) / len(found)
        lines.append(
            f"| {wrong}:1 | {name} | {100 * sum(coverages) / len(coverages):.0f} | {mean:.3f} |"
            f" {max(found):.3f} | {above} of {len(found)} |"
        )
    return "\n".join(lines)


ERRORS, POWERS, FLOORS = (0.03, 0.12), (2, 8, 20), (0.0, 0.0005, 0.002, 0.01)
EXAMPLES = (270, 2500)
POPULATION = 200_000


def one_more(prices: Prices, risks: Sequence[float], examples: int) -> float:
    """The cheapest coverage were there one more error and one more right decision (Laplace's rule of
    succession).
    """
    counts = [examples * step / len(risks) for step in range(1, len(risks) + 1)]
    return prices.best_coverage(
        [(risk * count + 1) / (count + 2) for risk, count in zip(risks, counts, strict=True)]
    )


def at_its_limit(prices: Prices, risks: Sequence[float], examples: int) -> float:
    """The cheapest coverage were the risk as high as the limit."""
    return prices.best_coverage(promised(risks, examples))


SIMULATED: dict[str, Rule] = {**RULES, "one error more": one_more, "cheapest at the limit": at_its_limit}


def simulate(draws: int) -> str:
    """Costs of all rules as a share of reviewing everything, as Markdown."""
    random = np.random.default_rng(0)
    found: dict[tuple[int, int, str], list[Float[np.ndarray, " draw"]]] = {}
    for examples in EXAMPLES:
        for error, power, floor in product(ERRORS, POWERS, FLOORS):

            def rate(
                place: np.ndarray, error: float = error, power: int = power, floor: float = floor
            ) -> np.ndarray:
                return np.minimum(0.9, floor + (error - floor) * (power + 1) * place**power)

            true = risks_at(rate((np.arange(POPULATION) + 0.5) / POPULATION)).tolist()
            mean = rate(np.sort(random.random((draws, examples))))
            wrong = random.random((8, draws, examples)) < random.beta(
                np.maximum(0.2 * mean, 1e-12), 0.2 * (1 - mean)
            )
            seen = risks_at(wrong.mean(0))
            for dear, (name, rule) in product(PRICES, SIMULATED.items()):
                prices = Prices(wrong=dear, review=1.0)
                costs = np.array([prices.cost_at(true, rule(prices, own, examples)) for own in seen.tolist()])
                found.setdefault((examples, dear, name), []).append(costs)
    lines = [
        "| examples | prices | rule | cost / review | above review, % of draws | dearest task, mean |",
        "|---|---|---|---|---|---|",
    ]
    for (examples, dear, name), parts in found.items():
        means = [float(part.mean()) for part in parts]
        above = 100 * float((np.concatenate(parts) > 1).mean())
        lines.append(
            f"| {examples} | {dear}:1 | {name} | {sum(means) / len(means):.3f} | {above:.1f} |"
            f" {max(means):.3f} |"
        )
    return "\n".join(lines)


def risks_at(wrong: Float[np.ndarray, "*draw example"]) -> Float[np.ndarray, "*draw step"]:
    """The error rate among the first 1 %, 2 %, …, 100 % of the examples."""
    counts = np.ceil(np.arange(1, 101) / 100 * wrong.shape[-1] - 1e-9).astype(int)
    return np.asarray(wrong.cumsum(-1)[..., counts - 1] / counts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="digits/mlp")
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--simulate", action="store_true", help="compare rules where the risks are known")
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    if options.simulate:
        print(
            f"{options.draws} draws of {len(ERRORS) * len(POWERS) * len(FLOORS)} tasks, NumPy"
            f" {version('numpy')}, {platform.machine()}\n"
        )
        print(f"{simulate(options.draws)}\n\n{time.perf_counter() - started:.0f} s")
        return
    plan = resolve(
        {
            "smoothing": "uniform",
            "tasks": [options.task],
            "data_dir": options.data_dir,
            "train_examples": options.train_examples,
        }
    )
    task = plan.tasks[0]
    dataset = load(task.dataset, options.data_dir, plan.train_examples)
    engine = choose(task, dataset, ("uniform",), pick_device("auto"), options.seeds)
    labels = {split: dataset.splits[split].targets.cpu() for split in SPLITS}
    groups, anew = [], []
    generator = torch.Generator().manual_seed(0)
    for group in range(options.groups):
        first = FIRST_SEED + group * options.seeds
        trained = engine.train(
            [
                member_of(task, plan.smoothing[0], {"epsilon": 0.0}, seed)
                for seed in range(first, first + options.seeds)
            ],
            lambda _: None,
        )
        logits = {split: engine.logits(trained, split) for split in SPLITS}
        groups.append(costs(*((logits[split], labels[split]) for split in labels)))
        order = torch.randperm(sum(map(len, labels.values())), generator=generator)
        pooled, answers = torch.cat(list(logits.values()), 1), torch.cat(list(labels.values()))
        parts = order[: len(labels["calibrate"])], order[len(labels["calibrate"]) :]
        anew.append(costs(*((pooled[:, part], answers[part]) for part in parts)))
    sizes = ", ".join(f"{len(own)} examples of {split}" for split, own in labels.items())
    print(
        f"{options.task}, {options.groups} groups of {options.seeds} seeds, {sizes}, torch"
        f" {version('torch')}, {platform.machine()}\n"
    )
    print(table(groups), "\n\n*Calibrate* and *test* split anew for each group:\n", table(anew), sep="\n")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
