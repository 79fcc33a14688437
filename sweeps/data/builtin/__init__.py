"""Built-in data sets, one file each; importing the package registers them all."""

import importlib
import pkgutil

from sweeps.data.registry import DATASETS, YIELDS

__all__ = ["DATASETS", "YIELDS"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
