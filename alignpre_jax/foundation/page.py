"""This module makes pages that load nothing from anywhere: their templates, their colours and their figures.

The colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart. In an SVG they become CSS
variables (`--ink`, `--faint`, `--arm0` ...), which `page.css.j2` defines for a light and a dark page, so that a figure
follows the page around it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
INK, FAINT = "#1a1a19", "#8b8a86"
VARIABLES = {INK: "--ink", FAINT: "--faint"} | {colour: f"--arm{index}" for index, colour in enumerate(OKABE_ITO)}

STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def page_environment(package: str, filters: Mapping[str, Callable[..., Any]]) -> jinja2.Environment:
    """Returns an environment with the templates of a package's `templates` folder and those that all pages share.

    A template of the package comes before a shared one of the same name. All text is escaped.
    """

    def load(name: str) -> str:
        for of_package in (package, __package__):
            place = resources.files(of_package).joinpath("templates", name)
            if place.is_file():
                return place.read_text("utf-8")
        raise jinja2.TemplateNotFound(name)

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": lambda value: f"{value:,}", **filters}
    return environment


def svg_element(figure: Figure, name: str) -> str:
    """Returns a figure as an `<svg>` element that scales and takes its colours from CSS.

    All ids in it begin with `name`, so that figures of different names do not share ids on a page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has the glyph
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'^<svg ([^>]*?)\bwidth="[^"]*"', r"<svg \1", svg.replace("\n", " ", 1), count=1)
    svg = re.sub(r'^(<svg [^>]*?)\bheight="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit")
    for colour, variable in VARIABLES.items():
        svg = re.sub(rf"{colour}\b", f"var({variable})", svg, flags=re.IGNORECASE)
    return svg
