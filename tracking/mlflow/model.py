"""Model: a trained network with its temperature, exported, as the folder that MLflow loads and serves.

The folder is made here and not by `mlflow.pytorch.save_model`: that imports torch into the process that
writes to MLflow, and traces the network again.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FLAVOR = "pytorch"


@dataclass(frozen=True)
class ExportedModel:
    """A program that takes a batch of stored inputs and returns calibrated probabilities (example, class).

    Attributes:
        dtype, shape: of one stored input, such as uint8 (1, 28, 28).
        classes: the class names.
        torch: the version that exported it.
        about: its description, by name: task, ε, temperature, seed, trial.
        program: a torch.export archive (`.pt2`), whose tensors are raw bytes: nothing in it is unpickled.
    """

    dtype: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    torch: str
    about: Mapping[str, str]
    program: bytes = b""

    @property
    def digest(self) -> str:
        """Names the model by its content."""
        content = json.dumps([dict(self.about), self.dtype, self.shape, self.classes, self.torch])
        return hashlib.sha256(self.program + content.encode()).hexdigest()[:16]

    def write(self, folder: Path, model_id: str) -> None:
        """Write the files of an MLflow model, flavours pytorch (`pt2`) and python_function, to be loaded
        without pickle.

        Served by python_function it computes on the CPU, where its tensors are.
        """
        import mlflow  # takes seconds, and the exporter does not write
        import numpy as np
        import yaml
        from mlflow.models import Model, ModelSignature
        from mlflow.types.schema import Schema, TensorSpec

        (folder / "data").mkdir(parents=True)
        (folder / "data" / "model.pt2").write_bytes(self.program)
        python = ".".join(str(part) for part in sys.version_info[:3])
        inputs = Schema([TensorSpec(np.dtype(self.dtype), (-1, *self.shape))])
        outputs = Schema([TensorSpec(np.dtype("float32"), (-1, len(self.classes)))])
        model = Model(
            signature=ModelSignature(inputs, outputs),
            metadata={**self.about, "classes": list(self.classes)},
            model_id=model_id,
        )
        model.add_flavor(FLAVOR, model_data="data", pytorch_version=self.torch, code=None)
        model.add_flavor(  # as `mlflow.pyfunc.add_to_model`, whose import takes seconds
            "python_function",
            loader_module=f"mlflow.{FLAVOR}",
            python_version=python,
            data="data",
            env={"virtualenv": "python_env.yaml"},
            config={"device": "cpu"},
        )
        model.save(str(folder / "MLmodel"))
        requirements = [f"mlflow=={mlflow.__version__}", f"torch=={self.torch.partition('+')[0]}"]
        (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
        (folder / "python_env.yaml").write_text(
            yaml.safe_dump({"python": python, "dependencies": ["-r requirements.txt"]})
        )
