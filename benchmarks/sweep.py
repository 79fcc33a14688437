"""A whole sweep of `digits/mlp` against what one would otherwise write, as whole processes, interleaved.

    python -m benchmarks.sweep [--rounds 3]

The baseline is the usual script: Optuna in a loop, a DataLoader, netcal's ECE after every epoch, an MLflow
run per member with its metrics logged epoch by epoch; the same ε, seeds, epochs, batches, recipe and
databases. It has no temperature, no confirmation, no intervals and no recommendation; ours has, and their
time is counted.
"""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from sweeps.data.load import load
from sweeps.settings import resolve
from sweeps.site import Site

EPSILONS = (0.0, 0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35)


def baseline() -> None:
    """The usual script, in the current directory."""
    import mlflow
    import numpy as np
    import optuna
    from netcal.metrics import ECE
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    plan = resolve({"smoothing": "uniform"})
    recipe = plan.tasks[0].recipe
    dataset = load("digits")
    train, select = dataset.splits["train"], dataset.splits["select"]
    training = TensorDataset(dataset.prepare(train.inputs), train.labels)
    held_out, labels = dataset.prepare(select.inputs), select.labels
    mlflow.set_tracking_uri(Site.tracking_uri)
    mlflow.set_experiment("digits/mlp")
    steps = len(training) // recipe.batch_size * recipe.epochs
    warmup = steps // 10

    def rate(step: int) -> float:
        return (
            (step + 1) / warmup
            if step < warmup
            else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        epsilon = trial.suggest_float("epsilon", 0.0, 0.4)
        results = []
        for seed in range(plan.seeds):
            with mlflow.start_run():
                mlflow.log_params({"epsilon": epsilon, "seed": seed})
                torch.manual_seed(seed)
                model = nn.Sequential(
                    nn.Flatten(),
                    nn.Linear(64, 128),
                    nn.ReLU(),
                    nn.Linear(128, 128),
                    nn.ReLU(),
                    nn.Linear(128, len(dataset.classes)),
                )
                generator = torch.Generator().manual_seed(seed)
                loader = DataLoader(
                    training, recipe.batch_size, shuffle=True, drop_last=True, generator=generator
                )
                loss_function = nn.CrossEntropyLoss(label_smoothing=epsilon)
                optimiser = torch.optim.AdamW(
                    model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
                )
                schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
                for epoch in range(recipe.epochs):
                    model.train()
                    for x, y in loader:
                        loss = loss_function(model(x), y)
                        optimiser.zero_grad()
                        loss.backward()
                        optimiser.step()
                        schedule.step()
                    model.eval()
                    with torch.no_grad():
                        logits = model(held_out)
                    probabilities = logits.softmax(-1).double().numpy()
                    accuracy = float((logits.argmax(-1) == labels).double().mean())
                    ece = float(ECE(15).measure(probabilities, labels.numpy()))
                    nll = float(nn.functional.cross_entropy(logits, labels))
                    mlflow.log_metrics(
                        {"accuracy": accuracy, "ece": ece, "nll": nll, "train_loss": float(loss)}, step=epoch
                    )
                results.append((accuracy, ece))
        accuracy, ece = np.mean(results, axis=0)
        return float(accuracy), float(ece)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=Site.storage, directions=["maximize", "minimize"])
    for epsilon in EPSILONS:
        study.enqueue_trial({"epsilon": epsilon})
    study.optimize(objective, n_trials=len(EPSILONS))
    for trial in sorted(study.trials, key=lambda trial: float(trial.params["epsilon"])):
        print(f"{trial.params['epsilon']:.2f}  accuracy {trial.values[0]:.4f}  ECE {trial.values[1]:.4f}")


def seconds(command: list[str]) -> float:
    """Wall time of a process in an empty directory of its own."""
    root = str(Path(__file__).parents[1])
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI")
    }
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, env={**clean, "PYTHONPATH": root}
        )
        return time.perf_counter() - started


def compare(rounds: int) -> None:
    """Run both in turn, and print the ratio of each round."""
    plan = resolve({"smoothing": "uniform"})
    epochs = plan.tasks[0].recipe.epochs
    member_epochs = plan.trials * plan.seeds * epochs
    print(
        f"digits/mlp: {plan.trials} values of ε × {plan.seeds} seeds × {epochs} epochs = {member_epochs}"
        " member-epochs"
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna", "mlflow", "netcal"))
    print(
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {packages}"
    )
    ratios = []
    for number in range(1, rounds + 1):
        ours = seconds([sys.executable, "-m", "sweeps.run", "--smoothing", "uniform"])
        theirs = seconds([sys.executable, "-m", "benchmarks.sweep", "--baseline"])
        ratios.append(theirs / ours)
        print(
            f"round {number}: ours {ours:.1f} s, baseline {theirs:.1f} s, ratio {ratios[-1]:.2f}", flush=True
        )
    print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--baseline", action="store_true", help="only the baseline, in the current directory")
    options = flags.parse_args()
    if options.baseline:
        baseline()
    else:
        compare(options.rounds)
