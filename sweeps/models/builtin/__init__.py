"""Built-in networks, one file each; importing the package registers them all."""

import importlib
import pkgutil

from sweeps.models.registry import ARCHITECTURES

__all__ = ["ARCHITECTURES"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
