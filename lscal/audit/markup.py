"""Markup: HTML in which every text is escaped, because only `Markup` is taken as it is."""

import html
from dataclasses import dataclass

VOID = ("meta", "br", "hr")


@dataclass(frozen=True)
class Markup:
    """HTML, ready to be written."""

    text: str


Part = Markup | str
"""Content of an element: text, escaped, or markup."""


def element(tag: str, *parts: Part, **attributes: str) -> Markup:
    """An element. Attribute names are Python's: `class_` is class, `aria_label` is aria-label."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    if tag in VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{joined(*parts).text}</{tag}>")


def joined(*parts: Part) -> Markup:
    """Parts one after the other."""
    return Markup("".join(part.text if isinstance(part, Markup) else html.escape(part) for part in parts))
