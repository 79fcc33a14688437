"""Initial weights of every member, from a file that a plan names, instead of a fresh initialisation."""

import hashlib
from functools import cache
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sweeps.errors import WrongInput

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before all names: DataParallel, torch.compile, Lightning."""
NAMED = 5


def digest(path: str) -> str:
    """Sixteen hexadecimal digits that differ between files. Errors: WrongInput where there is none."""
    try:
        with Path(path).expanduser().open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        raise WrongInput(f"cannot read the weights {path}: {error.strerror}.") from error


@cache
def read(path: str) -> dict[str, Tensor]:
    """The weights in a safetensors file, without the prefix that all names share. Errors: WrongInput for
    another kind of file.
    """
    try:
        found = safetensors.torch.load_file(Path(path).expanduser())
    except (OSError, safetensors.SafetensorError) as error:
        raise WrongInput(
            f"cannot read the weights {path}: {error}. Wanted safetensors; of a torch model:"
            " safetensors.torch.save_file(model.state_dict(), path)."
        ) from error
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found):
            return {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def take_over(module: nn.Module, path: str) -> None:
    """Give a module the weights of a file, in place. Errors: WrongInput, naming those that are missing, too
    many, or of another shape.
    """
    given = read(path)
    own = module.state_dict()
    if not all(name in own for name in given) and all(f"model.{name}" in own for name in given):
        given = {f"model.{name}": value for name, value in given.items()}
    tied = {
        name for name in own if name not in dict(module.named_parameters()) | dict(module.named_buffers())
    }
    missing = [name for name in own if name not in given and name not in tied]
    strange = [name for name in given if name not in own]
    other = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in given.items()
        if name in own and value.shape != own[name].shape
    ]
    if missing or strange or other:
        listing = "; ".join(
            f"{what}:"
            f" {', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"
            for what, names in (
                ("not in the file", missing),
                ("not in the network", strange),
                ("of another shape", other),
            )
            if names
        )
        head = (
            " A head for other classes has to be cut off the file first, or the network's code loads its"
            " weights itself."
            if other
            else ""
        )
        raise WrongInput(f"the weights {path} do not fit the network: {listing}.{head}")
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)
