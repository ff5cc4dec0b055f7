"""The report as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from alignpre_jax.foundation import flatten
from alignpre_jax.foundation.page import VARIABLES, page_environment
from alignpre_jax.study.report.figures import arm_colours, figure_svg
from alignpre_jax.study.report.words import SCORING_MEANINGS, SPLIT_MEANINGS, percent, points, signed, split_words


def render_page(report: Mapping[str, Any]) -> str:
    """The page for a report as `build_report` makes it, or as it was read back from report.json.

    All text is escaped by jinja2; the figure is the only markup that is put in as it is.
    """
    page = page_environment(__package__, _FILTERS).get_template("report.html.j2")
    return page.render(
        report=report,
        figures={layout: Markup(figure_svg(report, layout)) for layout in ("wide", "narrow")},
        colours={arm: f"var({VARIABLES[colour]})" for arm, colour in arm_colours(report).items()},
        ledger=ledger_lines(report["ledger"]),
        settings=flatten(report["config"]),
        split_meanings=SPLIT_MEANINGS,
        scoring_meanings=SCORING_MEANINGS,
    )


def ledger_lines(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Per stage, one line per store: `tokens` by arm (None where the arm's plan does not know the store)."""
    stages: dict[str, dict[str, dict[str, Any]]] = {}
    for arm, of_arm in ledger.items():
        for stage, counts in of_arm.items():
            lines = stages.setdefault(stage, {})
            for store in counts["stores"]:
                lines.setdefault(store["store"], {})[arm] = store
    return {
        stage: [{"store": store, "arms": by_arm} for store, by_arm in lines.items()] for stage, lines in stages.items()
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


_FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent,
    "points": points,
    "split_words": split_words,
    "signed": signed,
    "duration": _duration,
}
