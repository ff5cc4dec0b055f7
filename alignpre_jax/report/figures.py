"""The report's figures show the misaligned rate by arm and split, by topic and by dose, and evals over training.

The colours can be told apart by the colour-blind, and arms are also labelled directly, or have a marker of their own.
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

ROW, HEAD = 0.36, 0.75  # height in inches of an arm, and of what is around the arms of a panel
MARKERS = "osD^vPX*"
VALUES = {"scenarios": "misaligned_rate", "held_out": "loss", "capabilities": "accuracy"}  # shown by a curve
Layout = Literal["wide", "narrow"]
LAYOUTS: tuple[Layout, ...] = ("wide", "narrow")


def arm_colours(report: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each arm: ink for the baseline, and the palette's colours in order for the others."""
    arms = list(report["config"]["arms"])
    others = [arm for arm in arms if arm != report["baseline"]]
    colours = {arm: OKABE_ITO[index % len(OKABE_ITO)] for index, arm in enumerate(others)}
    return {arm: colours.get(arm, INK) for arm in arms}


def rate_figure(report: Mapping[str, Any], layout: Layout = "wide") -> Figure:
    """Draws the headline eval's rates: one panel per split, side by side (wide) or below one another (narrow)."""
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
    """Draws the headline eval by topic on the primary split: a row for each topic, in it a marker for each arm."""
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


def dose_figure(curve: Mapping[str, Any]) -> Figure:
    """Draws the misaligned rate against the dose, with a line for each node."""
    lines = [(node, points) for node, points in curve["nodes"].items()]
    colours = {node: OKABE_ITO[number % len(OKABE_ITO)] for number, node in enumerate(curve["nodes"])}
    values = sorted({point["dose"] for points in curve["nodes"].values() for point in points})
    with matplotlib.rc_context(STYLE):
        figure, panel = _curves(lines, "dose", "misaligned_rate", colours)
        panel.set_xlabel(f"dose, share of the tokens of {curve['stage']}")
        if len(values) <= 6:
            panel.set_xticks(values, [f"{100 * value:g}%" for value in values])
            panel.minorticks_off()
        _percent_axis(panel)
    return figure


def training_figure(report: Mapping[str, Any], curve: Mapping[str, Any]) -> Figure:
    """Draws what an eval gave over training, with a line for each arm; a line forks where the tree forks."""
    value = VALUES[curve["kind"]]
    lines = []
    for arm, points in curve["arms"].items():
        by_stage: dict[str, list[Any]] = {}
        for point in points:
            by_stage.setdefault(point["stage"], []).append(point)
        for stage, of_stage in by_stage.items():
            after = report["config"]["stages"][stage]["after"]
            lines.append((arm, by_stage.get(after, [])[-1:] + of_stage))
    with matplotlib.rc_context(STYLE):
        figure, panel = _curves(lines, "tokens", value, arm_colours(report))
        panel.set_xlabel("tokens trained on")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if value == "loss":
            panel.set_ylabel("nats per token")
        else:
            _percent_axis(panel)
    return figure


def _curves(
    lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], axis: str, value: str, colours: Mapping[str, str]
) -> tuple[Figure, Axes]:
    """Draws lines with their intervals; lines of the same name share a colour, a marker and an entry in the legend."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    figure.patch.set_alpha(0)
    panel = figure.subplots()
    values = sorted({point[axis] for _, points in lines for point in points})
    positive = [at for at in values if at > 0]
    if positive and positive[-1] / positive[0] > 20:
        panel.set_xscale("symlog", linthresh=positive[0])
    names = list(dict.fromkeys(name for name, _ in lines))
    drawn: set[str] = set()
    for name, points in lines:
        x, y = [point[axis] for point in points], [point[value] for point in points]
        low, high = ([point["ci95"][end] for point in points] for end in (0, 1))
        marker, label = MARKERS[names.index(name) % len(MARKERS)], None if name in drawn else name
        panel.fill_between(x, low, high, color=colours[name], alpha=0.1, linewidth=0)
        panel.plot(x, y, "-", marker=marker, color=colours[name], markersize=5, label=label)
        drawn.add(name)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    _bare(panel, keep=("bottom", "left"))
    return figure, panel


def _percent_axis(panel: Axes) -> None:
    panel.set_ylim(-0.02, 1.02)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50", "", "100%"])


def all_figures(report: Mapping[str, Any]) -> dict[str, str]:
    """Every figure that the report has data for, as `<svg>` elements by name; no two share an id."""
    found: dict[str, str] = {layout: figure_svg(report, layout) for layout in LAYOUTS}
    if any(line["split"] == report["primary_split"] for line in report["topics"]):
        found |= {
            f"topics-{layout}": svg_element(topic_figure(report, layout), f"topics-{layout}") for layout in LAYOUTS
        }
    for number, curve in enumerate(report["doses"]):
        found[f"dose-{number}"] = svg_element(dose_figure(curve), f"dose-{number}")
    for number, curve in enumerate(report["training"].values()):
        if any(len(points) > 1 for points in curve["arms"].values()):
            found[f"training-{number}"] = svg_element(training_figure(report, curve), f"training-{number}")
    return found


def figure_svg(report: Mapping[str, Any], layout: Layout) -> str:
    """The figure of rates as an `<svg>` element; the ids in two layouts differ."""
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
