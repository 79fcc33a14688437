"""Schema: reads and writes records as JSON. Pydantic checks them against the dataclasses themselves."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt

if TYPE_CHECKING:  # importing it takes 40 ms, which a command that reads no record does not wait for
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

SCHEMA = 1
"""Number of the records' form. Records without one were written by older versions, and are still read."""
LONGEST = 60
"""Characters of a wrong value that an error quotes."""
T = TypeVar("T")


class WrongRecord(ValueError):
    """A record is not of the form it must have; the message is one sentence: where, what, and the remedy."""


@dataclass(frozen=True)
class Null:
    """The number that null stands for: JSON has neither infinities nor NaN."""

    value: float

    def __get_pydantic_core_schema__(self, source: type, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema as core

        null = core.no_info_after_validator_function(lambda _: self.value, core.none_schema())
        return core.union_schema(
            [handler(source), null],
            mode="left_to_right",
            custom_error_type="number",
            custom_error_message="Input should be a number",
        )

    def __get_pydantic_json_schema__(
        self, schema: "CoreSchema", handler: "GetJsonSchemaHandler"
    ) -> dict[str, Any]:
        return {"type": "number"}


Number = Annotated[float, Null(math.nan)]
Low = Annotated[float, Null(-math.inf)]
High = Annotated[float, Null(math.inf)]
Share = Annotated[float, Ge(0), Le(1 + 1e-6)]
"""A share; a mean of 32-bit numbers may round to slightly more than 1."""
Epsilon = Annotated[float, Gt(-math.inf), Lt(1)]
"""ε in the ε/K convention; below 0 the label gets more than all."""
Positive = Annotated[float, Gt(0), Lt(math.inf)]
Count = Annotated[int, Ge(0)]


def write(record: Any, ascii_only: bool = True) -> str:
    """A record as one line of JSON, with the number of its schema."""
    return json.dumps({"schema": SCHEMA, **values_of(record)}, allow_nan=False, ensure_ascii=ascii_only)


def values_of(record: Any) -> dict[str, Any]:
    """A record as values that JSON has; None for infinities and NaN."""
    values: dict[str, Any] = finite(asdict(record))
    return values


def finite(value: Any) -> Any:
    """Plain values with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(kind: type[T], text: str | bytes, where: str = "the record") -> T:
    """The record in a text. Names that this version does not know are left out. Errors: WrongRecord, which
    begins with `where`.
    """
    from pydantic import ValidationError
    from pydantic_core import from_json

    try:
        found: T = adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]  # types can be hashed
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] != "json_invalid":
            check_schema(from_json(text), where)
        told = sentence(where, first["loc"], first["type"], first["msg"], first["input"])
        raise WrongRecord(told) from error
    check_schema(from_json(text), where)
    return found


def check_schema(values: Any, where: str) -> None:
    """Refuse a record of a later schema. Errors: WrongRecord."""
    number = values.get("schema", SCHEMA) if isinstance(values, dict) else SCHEMA
    if type(number) is not int or not 0 < number <= SCHEMA:
        raise WrongRecord(f"{where}: schema is {quoted(number)}; wanted at most {SCHEMA}. Update lscal.")


def sentence(where: str, path: Sequence[str | int], kind: str, told: str, value: object) -> str:
    """What is wrong with a record, in the words of pydantic's error."""
    name = ".".join(map(str, path)) or "it"
    if kind == "missing":
        return f"{where}: {name} is missing."
    if kind == "json_invalid":
        return f"{where} is no JSON: {told.removeprefix('Invalid JSON: ')}."
    return f"{where}: {name} is {quoted(value)}; wanted {told.removeprefix('Input should be ')}."


def quoted(value: object) -> str:
    """A value as it is shown in an error."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


@lru_cache
def adapter(kind: Any) -> "TypeAdapter[Any]":
    """Pydantic's reader of a kind of record."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
