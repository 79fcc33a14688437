"""Task names and patterns such as `*/mlp`: the tasks that a plan means, and why one is not possible."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from sweeps.data.readers.examples import listed
from sweeps.data.readers.spec import NAME
from sweeps.errors import WrongInput, unknown
from sweeps.external import Catalogue

NEAR = 4
"""Most alternatives named for a task that is not possible."""


def matching(pattern: str, catalogue: Catalogue) -> list[str]:
    """The possible tasks that a name or a pattern means: those whose network reads what the data set yields.

    For a pattern, user-supplied data sets that declare nothing are read; a name is taken at its word.
    Errors: WrongInput where there is no such task, or none that is possible.
    """
    names = [f"{dataset}/{network}" for dataset in catalogue.datasets for network in catalogue.architectures]
    if found := [name for name in names if fnmatchcase(name, pattern)]:
        possible = [name for name in found if is_possible(name, catalogue, look=name != pattern)]
        if not possible:
            raise impossible(pattern, found[0], catalogue)
        return possible
    dataset, slash, network = pattern.partition("/")
    if slash and dataset not in catalogue.datasets and "*" not in dataset:
        raise unsupplied("dataset", dataset, catalogue.datasets, f"--dataset PATH --name {dataset}")
    if slash and network not in catalogue.architectures and "*" not in network:
        networks = dict.fromkeys(catalogue.architectures)
        flag = f"--architecture {network}=package.module:function"
        raise unsupplied("architecture", network, networks, flag)
    raise unknown("task", pattern, [name for name in names if is_possible(name, catalogue)])


def is_possible(name: str, catalogue: Catalogue, *, look: bool = False) -> bool:
    """Whether the network of a task reads what its data set yields; where that is not declared, it is taken
    for possible, or read.
    """
    dataset, network = name.split("/")
    yields = catalogue.yields(dataset)
    if yields is None and look and dataset in catalogue.own_datasets:
        yields = catalogue.seen(dataset)
    return catalogue.architecture(network).reads.takes(yields)


def impossible(pattern: str, name: str, catalogue: Catalogue) -> WrongInput:
    """The error for a task that cannot work, or for a pattern of such tasks, of which `name` is the first."""
    dataset, network = name.split("/")
    networks = sorted(one for one in catalogue.architectures if is_possible(f"{dataset}/{one}", catalogue))
    datasets = sorted(one for one in catalogue.datasets if is_possible(f"{one}/{network}", catalogue))
    reads, yields = catalogue.architecture(network).reads, catalogue.yields(dataset) or "something else"
    with_dataset = (
        f"With {dataset} go {listed(networks, NEAR)}" if networks else f"No network here reads {dataset}"
    )
    with_network = (
        f"with {network} go {listed(datasets, NEAR)}" if datasets else f"{network} reads no data set here"
    )
    told = f"{name} is not possible" if name == pattern else f"no task {pattern!r} is possible"
    return WrongInput(
        f"{told}: {network} reads {reads}, and {dataset} yields {yields}. {with_dataset}; {with_network}."
    )


def unsupplied(kind: str, name: str, known: Mapping[str, Any], flags: str) -> WrongInput:
    """The error for a name that does not exist, with the flags that would supply it."""
    error = unknown(kind, name, known)
    if not NAME.fullmatch(name):
        return error
    return WrongInput(f"{error} To supply one of your own, on each worker too: {flags}.")
