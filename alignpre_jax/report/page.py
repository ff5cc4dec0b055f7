"""The page is the report as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from markupsafe import Markup

from alignpre_jax.foundation import flatten
from alignpre_jax.foundation.page import VARIABLES, page_environment
from alignpre_jax.report.figures import all_figures, arm_colours
from alignpre_jax.report.words import (
    SCORING_MEANINGS,
    SPLIT_MEANINGS,
    left_words,
    notice_words,
    percent,
    points,
    signed,
    split_words,
)


def render_page(report: Mapping[str, Any]) -> str:
    """Renders the page of a report as `build_report` makes it, or as it was read back from report.json.

    All text is escaped by jinja2; the figures are the only markup that is put in as it is. One script of ours runs,
    which the page's own policy names by its hash. It reads the items from JSON in which no markup is left.
    """
    script = resources.files(__package__).joinpath("templates", "browser.js").read_text("utf-8")
    page = page_environment(__package__, _FILTERS).get_template("report.html.j2")
    return page.render(
        report=report,
        figures={name: Markup(svg) for name, svg in all_figures(report).items()},
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        browser=Markup(data_element(report["browser"])),
        colours={arm: f"var({VARIABLES[colour]})" for arm, colour in arm_colours(report).items()},
        ledger=ledger_lines(report["ledger"]),
        share_notes=share_notes(report),
        settings=flatten(report["config"]),
        split_meanings=SPLIT_MEANINGS,
        scoring_meanings=SCORING_MEANINGS,
    )


def data_element(value: Any) -> str:
    """A value as JSON that may stand inside a `<script>` element: `<`, `>`, `&` and line separators are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def ledger_lines(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """For each stage one line per store, with the ledger's counts of the store by arm.

    An arm whose plan does not know the store is not in the line.
    """
    stages: dict[str, dict[str, dict[str, Any]]] = {}
    for arm, of_arm in ledger.items():
        for stage, counts in of_arm.items():
            lines = stages.setdefault(stage, {})
            for store in counts["stores"]:
                lines.setdefault(store["store"], {})[arm] = store
    return {
        stage: [{"store": store, "arms": by_arm} for store, by_arm in lines.items()] for stage, lines in stages.items()
    }


def share_notes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Notes about the shares left on the primary split: that no share is given, or that the arm was treated again."""
    notes: dict[tuple[str, str], list[str]] = {}
    for stage, node in report["nodes"].items():
        for arm, splits in node["retention"].items():
            left = splits.get(report["primary_split"])
            if left and (left["share"] is None or left["again"]):
                notes.setdefault((arm, left_words(left)), []).append(stage)
    return [{"arm": arm, "stages": stages, "text": text} for (arm, text), stages in notes.items()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


_FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent,
    "p_value": _p_value,
    "points": points,
    "split_words": split_words,
    "notice_words": notice_words,
    "signed": signed,
    "duration": _duration,
}
