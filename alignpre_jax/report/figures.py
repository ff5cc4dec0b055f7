"""The report's figures: misaligned rate per arm and split, by topic, by dose and over training.

Colours are told apart by the colour-blind; arms are also labelled directly, or by their own marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from alignpre_jax.foundation.page import FAINT, INK, OKABE_ITO, STYLE, svg_element
from alignpre_jax.report.words import percent, split_words

ROW, HEAD = 0.36, 0.75  # inches per arm, and around the arms of a panel
MARKERS = "osD^vPX*"
Layout = Literal["wide", "narrow"]
LAYOUTS: tuple[Layout, ...] = ("wide", "narrow")


def arm_colours(report: Mapping[str, Any]) -> dict[str, str]:
    """A colour per arm: ink for the baseline, the others in order."""
    others = [arm for arm in report["arms"] if arm != report["baseline"]]
    colours = {arm: OKABE_ITO[index % len(OKABE_ITO)] for index, arm in enumerate(others)}
    return {arm: colours.get(arm, INK) for arm in report["arms"]}


def rate_figure(report: Mapping[str, Any], layout: Layout = "wide") -> Figure:
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


def topic_figure(report: Mapping[str, Any], layout: Layout = "wide") -> Figure:
    """The headline eval by topic, on the primary split: a line of topics, a marker per arm."""
    lines = [line for line in report["topics"] if line["split"] == report["primary_split"]]
    arms, colours = list(report["arms"]), arm_colours(report)
    gap = 0.8 / max(1, len(arms))
    with matplotlib.rc_context(STYLE):
        width, row = (9.2, 0.16) if layout == "wide" else (4.4, 0.18)
        height = row * len(lines) * (len(arms) + 1) + HEAD + 0.3
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        panel = figure.subplots()
        for place, line in enumerate(lines):
            for number, arm in enumerate(arms):
                figures, y = line["arms"][arm], place - 0.4 + gap * (number + 0.5)
                panel.hlines(y, *figures["ci95"], color=colours[arm], linewidth=1.6, alpha=0.75)
                marker = MARKERS[number % len(MARKERS)]
                label = arm if place == 0 else None
                panel.plot(figures["misaligned_rate"], y, marker, color=colours[arm], markersize=4.6, label=label)
        panel.vlines(0.5, -0.6, len(lines) - 0.4, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        panel.set_ylim(len(lines) - 0.4, -0.6)
        panel.set_yticks(range(len(lines)), [split_words(line["topic"]) for line in lines])
        panel.tick_params(axis="y", length=0)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50", "", "100%"])
        figure.legend(loc="outside upper left", ncols=4 if layout == "wide" else 2, frameon=False, fontsize=9)
        _bare(panel)
    return figure


def curve_figure(
    report: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[str, Any]]], axis: str, label: str
) -> Figure:
    """Misaligned rate against a quantity of each point: the dose, or the tokens trained on."""
    colours = arm_colours(report)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        panel = figure.subplots()
        values = sorted({point[axis] for points in curves.values() for point in points})
        positive = [value for value in values if value > 0]
        if positive and positive[-1] / positive[0] > 20:
            panel.set_xscale("symlog", linthresh=positive[0])
        for number, (name, points) in enumerate(curves.items()):
            x, y = [point[axis] for point in points], [point["misaligned_rate"] for point in points]
            colour = colours.get(name) or OKABE_ITO[number % len(OKABE_ITO)]
            low, high = ([point["ci95"][end] for point in points] for end in (0, 1))
            panel.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
            panel.plot(x, y, "-", marker=MARKERS[number % len(MARKERS)], color=colour, markersize=5, label=name)
        panel.set_ylim(-0.02, 1.02)
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50", "", "100%"])
        panel.set_xlabel(label)
        if axis == "dose" and len(values) <= 6:
            panel.set_xticks(values, [f"{100 * value:g}%" for value in values])
            panel.minorticks_off()
        elif axis != "dose":
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        _bare(panel, keep=("bottom", "left"))
    return figure


def all_figures(report: Mapping[str, Any]) -> dict[str, str]:
    """Every figure that the report has data for, as `<svg>` elements by name; no two share an id."""
    found: dict[str, str] = {layout: figure_svg(report, layout) for layout in LAYOUTS}
    if any(line["split"] == report["primary_split"] for line in report["topics"]):
        found |= {
            f"topics-{layout}": svg_element(topic_figure(report, layout), f"topics-{layout}") for layout in LAYOUTS
        }
    for number, curve in enumerate(report["doses"]):
        name = f"dose-{number}"
        figure = curve_figure(report, {curve["source"]: curve["points"]}, "dose", "dose, share of the stage's tokens")
        found[name] = svg_element(figure, name)
    if any(len(points) > 1 for points in report["training"].values()):
        figure = curve_figure(report, report["training"], "tokens", "tokens trained on")
        found["training"] = svg_element(figure, "training")
    return found


def figure_svg(report: Mapping[str, Any], layout: Layout) -> str:
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
    _bare(panel)
    panel.spines["bottom"].set_bounds(0, 1)


def _bare(panel: Axes, keep: Sequence[str] = ("bottom",)) -> None:
    panel.patch.set_alpha(0)
    for side in ("left", "right", "top", "bottom"):
        panel.spines[side].set_visible(side in keep)
