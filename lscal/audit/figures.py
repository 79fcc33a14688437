"""Figures: diagrams as SVG inside a page. They take their colours from the page, so that one drawing is right
in light and dark.
"""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lscal.audit.markup import Markup
from lscal.diagrams.style import THEMES, Theme, ThemeName, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 400
"""Pixels, at which letters have the size of the page's small print."""


@runtime_checkable
class Diagram(Protocol):
    """A diagram that can be drawn."""

    @property
    def title(self) -> str:
        """Title of the diagram."""

    def draw(self, theme: ThemeName = ..., width: int = ...) -> "Figure":
        """Draw for print."""


def colours(theme: Theme) -> dict[str, str]:
    """Each colour of a theme by the name of its CSS variable."""
    named = asdict(theme)
    lines = named.pop("lines")
    return {f"--{name}": value for name, value in named.items()} | {
        f"--line-{i}": value for i, value in enumerate(lines)
    }


def variables() -> dict[str, str]:
    """The CSS variable of each colour of the light theme. Colours that are equal in the light are equal in
    the dark.
    """
    light, dark = (colours(THEMES[name]) for name in ("light", "dark"))
    named: dict[str, str] = {}
    for name, value in light.items():
        if dark[named.setdefault(value, name)] != dark[name]:
            raise ValueError(
                f"{value} is both {named[value]} and {name}, and they differ in the dark theme;"
                " give one another colour"
            )
    return named


def inline(diagram: Diagram, number: int, title: str) -> Markup:
    """A diagram as <svg>, its ids unlike those of all other numbers, without comments, name spaces or
    anything that loads.
    """
    figure = diagram.draw("light", WIDTH)
    for artist in figure.findobj(lambda artist: bool(artist.get_rasterized())):
        artist.set_rasterized(False)  # pixels could not change their colours
    text = svg(figure, title)
    text = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL
    )
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[0-9.]+pt"', "", text, count=2)
    text = re.sub(r"\b([1-9]\d*\.\d{2})\d+", r"\1", text)  # not below 1: scales keep their digits
    text = text.replace("stroke: #000000; stroke-opacity: 0", "stroke: none")
    for colour, variable in variables().items():
        text = text.replace(colour, f"var({variable})")
    return Markup(re.sub(r"\s*\n\s*", "\n", renamed(text, f"f{number}-")).strip())


def renamed(text: str, prefix: str) -> str:
    """The ids that are referred to get new ones, numbered in their order; the others go."""
    used = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"{prefix}{len(names)}")

    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{new(found[1])}"' if found[1] in used else "", text)
    text = re.sub(r'href="#([^"]+)"', lambda found: f'href="#{new(found[1])}"', text)
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{new(found[1])})", text)


def drawable(text: str) -> str:
    """The text with a question mark for each letter that Matplotlib's own font does not have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    return "".join(
        letter if letter.isprintable() and font.get_char_index(ord(letter)) else "?" for letter in text
    )
