"""Renders the plan as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from alignpre_jax.foundation import GIB
from alignpre_jax.foundation.page import FAINT, OKABE_ITO, STYLE, page_environment, svg_element
from alignpre_jax.planner.compare import Change
from alignpre_jax.planner.cost import StudyCost
from alignpre_jax.planner.plan import HOW, Plan
from alignpre_jax.planner.render import figures_of, memory_parts, time_parts
from alignpre_jax.planner.search import Search

_ROW, _HEAD = 0.5, 0.9  # inches


def render_page(
    plans: Sequence[Plan], cost: StudyCost | None, found: Search | None, changes: Sequence[Change] = ()
) -> str:
    """Returns the page. All text is escaped by jinja2; the figures are the only markup that is put in as it is."""
    rows = [figures_of(plan) for plan in plans]
    fitting = [plan for plan in plans if plan.fits]
    environment = page_environment(__package__, {"gib": lambda size: f"{size / GIB:,.2f}", "money": money})
    return environment.get_template("plan.html.j2").render(
        plans=plans,
        topology=plans[0].topology,
        labels=list(dict.fromkeys(label for row in rows for label in row)),
        rows=rows,
        cost=cost,
        found=found,
        changes=changes,
        how=HOW,
        time=Markup(svg_element(_bars(fitting, "time"), "time")) if fitting else "",
        memory=Markup(svg_element(_bars(fitting, "memory"), "memory")) if fitting else "",
    )


def money(dollars: float | None) -> str:
    """Returns dollars as people read them."""
    return "price unknown" if dollars is None else f"${dollars:,.0f}"


def _bars(plans: Sequence[Plan], what: str) -> Figure:
    """Draws a bar per plan, in parts whose names are in the legend, and whose sizes are in the bar if there is room."""
    parts = [time_parts(plan) if what == "time" else memory_parts(plan) for plan in plans]
    names = list(dict.fromkeys(name for each in parts for name in each))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, _ROW * len(plans) + _HEAD), layout="constrained")
        axes = figure.subplots()
        widest = max(sum(each.values()) for each in parts) or 1.0
        if what == "memory":
            widest = max(widest, *(plan.available / GIB for plan in plans))
        for row, (plan, each) in enumerate(zip(plans, parts, strict=True)):
            start = 0.0
            for name in names:
                size, colour = each.get(name, 0.0), OKABE_ITO[names.index(name) % len(OKABE_ITO)]
                axes.barh(row, size, left=start, height=0.6, color=colour, linewidth=0, label=name if not row else None)
                if size > 0.06 * widest:
                    axes.text(start + size / 2, row, f"{size:,.1f}", ha="center", va="center", fontsize=9.5)
                start += size
            if what == "memory":
                axes.plot([plan.available / GIB] * 2, [row - 0.42, row + 0.42], color=FAINT, linewidth=2)
        axes.set_yticks(range(len(plans)), [plan.work.name for plan in plans])
        axes.invert_yaxis()
        axes.set_xlim(0, widest * 1.03)
        axes.set_xlabel(
            "ms per step" if what == "time" else "GiB of HBM per device; the line is what a program may use"
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        figure.legend(loc="outside upper left", ncols=len(names), frameon=False, fontsize=9.5)
    return figure
