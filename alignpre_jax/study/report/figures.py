"""The report's figure: misaligned rate per arm and split, with intervals and every seed's own rate.

Colours are told apart by the colour-blind; arms are also labelled directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from alignpre_jax.foundation.page import FAINT, INK, OKABE_ITO, STYLE, svg_element
from alignpre_jax.study.report.words import percent, split_words

ROW, HEAD = 0.36, 0.75  # inches per arm, and around the arms of a panel


def arm_colours(report: Mapping[str, Any]) -> dict[str, str]:
    """A colour per arm: ink for the baseline, the others in order."""
    others = [arm for arm in report["arms"] if arm != report["baseline"]]
    colours = {arm: OKABE_ITO[index % len(OKABE_ITO)] for index, arm in enumerate(others)}
    return {arm: colours.get(arm, INK) for arm in report["arms"]}


def rate_figure(report: Mapping[str, Any], layout: Literal["wide", "narrow"] = "wide") -> Figure:
    """The headline eval's rates: one panel per split, side by side (wide) or below one another (narrow)."""
    splits, arms = report["splits"], report["arms"]
    with matplotlib.rc_context(STYLE):
        if layout == "wide":
            figure = Figure(figsize=(9.2, ROW * len(arms) + HEAD), layout="constrained")
            panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        else:
            engine = ConstrainedLayoutEngine(hspace=0.12)
            figure = Figure(figsize=(4.4, (ROW * len(arms) + HEAD) * len(splits)), layout=engine)
            panels = figure.subplots(len(splits), 1, squeeze=False)[:, 0]
        figure.patch.set_alpha(0)
        for panel, split in zip(panels, splits, strict=True):
            _panel(panel, report, split)
        if layout == "wide":
            for panel in panels[1:]:
                panel.tick_params(labelleft=False)
    return figure


def figure_svg(report: Mapping[str, Any], layout: Literal["wide", "narrow"]) -> str:
    """The figure as an `<svg>` element; two layouts share no id."""
    return svg_element(rate_figure(report, layout), layout)


def _panel(panel: Axes, report: Mapping[str, Any], split: str) -> None:
    arms = list(report["arms"])
    colours = arm_colours(report)
    panel.vlines(0.5, -0.6, len(arms) - 0.4, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    for row, arm in enumerate(arms):
        figures = report["arms"][arm][split]
        low, high = figures["ci95"]
        rate, colour = figures["misaligned_rate"], colours[arm]
        panel.hlines(row, low, high, color=colour, linewidth=2.4, zorder=2)
        panel.plot(rate, row, "o", color=colour, markersize=7, zorder=3)
        seeds = list(figures["seed_rates"].values())
        panel.plot(seeds, [row + 0.3] * len(seeds), "|", color=FAINT, markersize=4.5, markeredgewidth=1.1, zorder=1)
        panel.annotate(
            percent(rate, 0), (high, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10
        )
    panel.set_title(split_words(split), pad=7)
    panel.set_xlim(-0.02, 1.12)
    panel.set_ylim(len(arms) - 0.4, -0.6)
    panel.set_yticks(range(len(arms)), arms)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50", "", "100%"])
    panel.tick_params(axis="y", length=0, pad=6)
    panel.tick_params(axis="x", length=3)
    panel.patch.set_alpha(0)
    for side in ("left", "right", "top"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_bounds(0, 1)
