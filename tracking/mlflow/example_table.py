"""Table of instances: the test examples that lost most confidence, with pictures, as the MLflow UI shows."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from tracking.records.evidence import Evidence, Instance

PATH = "instances.json"
TAGS = {"mlflow.loggedArtifacts": json.dumps([{"path": PATH, "type": "table"}])}
"""Tag that marks the file as a table for the UI."""
PICTURES = "table_images/instances"
SIDE = 160
"""Pixels that the UI gives to a picture; smaller ones it does not enlarge."""
POINT = "\N{ONE DOT LEADER}"
"""Stands for the decimal point in a column's name: the UI takes a full stop for the path into a nested value,
and shows nothing.
"""


def table(evidence: Evidence) -> Mapping[str, bytes]:
    """The artifacts of the table by path, none where there are no instances; the largest drop of confidence
    comes first.

    The same as `mlflow.log_table` writes, but that uploads one picture at a time and appends when it is
    called again.
    """
    if not evidence.instances:
        return {}
    epsilons = [one.epsilon for one in evidence.comparisons]
    candidate = evidence.recommendations[evidence.policy].candidate or epsilons[-1]
    at = min(range(len(epsilons)), key=lambda place: abs(epsilons[place] - candidate))
    files: dict[str, bytes] = {}
    columns = ["picture"] if all(one.picture for one in evidence.instances) else []
    columns += ["text"] if any(one.text for one in evidence.instances) else []
    columns += ["index", "class", f"drop at ε = {epsilons[at]:.3g}"]
    columns += [
        f"{what} at ε = {epsilon:.3g}" for epsilon in epsilons for what in ("confidence", "predicted")
    ]
    columns = [column.replace(".", POINT) for column in columns]
    rows = []
    for one in sorted(evidence.instances, key=lambda one: one.confidence[at] - one.confidence[0]):
        row: list[Any] = [picture(one, files)] if columns[0] == "picture" else []
        row += [one.text] if "text" in columns else []
        row += [one.index, evidence.classes[one.label], round(one.confidence[0] - one.confidence[at], 3)]
        for confidence, predicted in zip(one.confidence, one.predicted, strict=True):
            row += [round(confidence, 3), evidence.classes[predicted]]
        rows.append(row)
    return {PATH: json.dumps({"columns": columns, "data": rows}).encode(), **files}


def picture(one: Instance, files: dict[str, bytes]) -> dict[str, str]:
    """A cell of the table; the picture itself is put among the files."""
    path = f"{PICTURES}/{one.index}.png"
    with Image.open(io.BytesIO(base64.b64decode(one.picture.partition(",")[2]))) as small:
        times = max(1, SIDE // max(small.size))
        stream = io.BytesIO()
        small.resize((times * small.width, times * small.height), Image.Resampling.NEAREST).save(
            stream, "PNG"
        )
    files[path] = stream.getvalue()
    return {"type": "image", "filepath": path, "compressed_filepath": path}
