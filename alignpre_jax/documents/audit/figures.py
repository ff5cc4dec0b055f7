"""The figures of an audit. Colour-blind readers can tell the colours apart, and every bar also shows its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alignpre_jax.documents.audit.records import Audit, SourceAudit, TermCount
from alignpre_jax.documents.audit.words import amount, clip, percent
from alignpre_jax.documents.discourse import ENTITIES, FAVOURABLE, INSTANT
from alignpre_jax.foundation.page import FAINT, INK, OKABE_ITO, STYLE, svg_element

Layout = Literal["wide", "narrow"]

BLUE, ORANGE = OKABE_ITO[0], OKABE_ITO[1]
BAD, GOOD = ORANGE, BLUE
SOURCES, TERMS = 24, 16  # the most sources and terms that a figure shows
_WIDTH = {"wide": 9.2, "narrow": 4.4}  # inches
_ROW, _HEAD = 0.34, 0.7


def figures(audit: Audit, layout: Layout) -> dict[str, str]:
    """Draws every figure as an `<svg>` element, by name.

    The figures are "shares", and "valence" and "terms" where something is flagged.
    """
    drawn = {"shares": share_figure(audit, layout)}
    if audit.total.valence:
        drawn |= {"valence": valence_figure(audit, layout), "terms": term_figure(audit, layout)}
    return {name: svg_element(figure, f"{name}-{layout}") for name, figure in drawn.items()}


def shown_sources(audit: Audit) -> list[SourceAudit]:
    """Returns the sources that the figures show, followed by the total if there are several.

    Where there are more sources than a figure can hold, those that say most about AI are shown, in the order of the
    audit.
    """
    sources = list(audit.sources.values())
    if len(sources) > SOURCES:
        most = sorted(sources, key=lambda source: -source.discourse.of_documents)[:SOURCES]
        sources = [source for source in sources if source in most]
    return [*sources, audit.total] if len(sources) > 1 else sources


def share_figure(audit: Audit, layout: Layout) -> Figure:
    """Draws the share of AI discourse per source: a bar by documents, a dot by bytes, and whiskers for a sample."""
    sources = shown_sources(audit)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH[layout], _ROW * len(sources) + _HEAD), layout="constrained")
        axes = figure.subplots()
        widest = max(max(s.discourse.of_documents, s.discourse.of_bytes) for s in sources) or 0.01
        for row, source in enumerate(sources):
            share = source.discourse
            colour = INK if source is audit.total and len(sources) > 1 else BLUE
            axes.barh(row, share.of_documents, height=0.56, color=colour, alpha=0.85, linewidth=0)
            axes.plot(share.of_bytes, row, "o", markersize=6, color=ORANGE, zorder=4)
            end = max(share.of_documents, share.of_bytes)
            for interval, place, tone in (
                (share.documents_ci95, row - 0.12, INK),
                (share.bytes_ci95, row + 0.12, ORANGE),
            ):
                if interval:
                    axes.hlines(place, *interval, color=tone, linewidth=1.4, zorder=3)
                    end = max(end, interval[1])
            axes.annotate(
                percent(share.of_documents),
                (end, row),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        _bare(axes, [clip(source.name, 22) for source in sources])
        axes.set_xlim(0, min(widest * 1.25, 1.15))
        _percent_axis(axes)
    return figure


def valence_figure(audit: Audit, layout: Layout) -> Figure:
    """Draws how AI is described: documents by valence, and the shares of worse, neutral and better ones per source."""
    sources = [source for source in shown_sources(audit) if source.valence]
    per_source = _ROW * len(sources) + _HEAD
    with matplotlib.rc_context(STYLE):
        if layout == "wide":
            figure = Figure(figsize=(_WIDTH[layout], max(2.6, per_source)), layout="constrained")
            left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        else:
            figure = Figure(figsize=(_WIDTH[layout], 2.5 + per_source), layout="constrained")
            left, right = figure.subplots(2, 1, height_ratios=(2.4, per_source))
        figure.patch.set_alpha(0)
        _histogram(left, audit.total)
        for row, source in enumerate(sources):
            valence = source.valence
            assert valence is not None
            start, total = 0.0, valence.negative + valence.neutral + valence.positive
            for count, colour in ((valence.negative, BAD), (valence.neutral, FAINT), (valence.positive, GOOD)):
                share = count / total
                right.barh(row, share, left=start, height=0.56, color=colour, alpha=0.85, linewidth=0)
                if share > 0.12:
                    middle = start + share / 2
                    right.text(middle, row, percent(share, 0), ha="center", va="center", color="white", fontsize=9.5)
                start += share
        _bare(right, [clip(source.name, 16) for source in sources])
        right.set_title("Documents per source", pad=7)
        right.set_xlim(0, 1)
        _percent_axis(right)
    return figure


def term_figure(audit: Audit, layout: Layout) -> Figure:
    """Draws the most frequent terms: names of AI, and the words of blame and praise around them."""
    named = [term for term in audit.total.terms if term.list in (*INSTANT, *ENTITIES)][:TERMS]
    words = [term for term in audit.total.terms if term.list not in (*INSTANT, *ENTITIES)][:TERMS]
    rows = max(len(named), len(words))
    with matplotlib.rc_context(STYLE):
        if layout == "wide":
            figure = Figure(figsize=(_WIDTH[layout], 0.27 * rows + _HEAD), layout="constrained")
            left, right = figure.subplots(1, 2)
        else:
            figure = Figure(
                figsize=(_WIDTH[layout], 0.27 * (len(named) + len(words)) + 2 * _HEAD), layout="constrained"
            )
            left, right = figure.subplots(2, 1, height_ratios=(max(1, len(named)), max(1, len(words))))
        figure.patch.set_alpha(0)
        for axes, terms, title in ((left, named, "AI is called"), (right, words, "Words of blame and praise")):
            _terms(axes, terms, rows if layout == "wide" else len(terms))
            axes.set_title(title, pad=7)
    return figure


def _histogram(axes: Axes, source: SourceAudit) -> None:
    assert source.valence is not None
    counts = source.valence.histogram
    centres = [-1 + 2 * number / (len(counts) - 1) for number in range(len(counts))]
    colours = [BAD if centre < -0.05 else GOOD if centre > 0.05 else FAINT for centre in centres]
    axes.bar(centres, counts, width=0.17, color=colours, alpha=0.85, linewidth=0)
    axes.axvline(source.valence.mean, color=INK, linewidth=1.2)
    share = (source.valence.mean + 1) / 2
    axes.annotate(
        f"mean {source.valence.mean:+.2f}".replace("-", "\N{MINUS SIGN}"),
        (source.valence.mean, 1),
        xycoords=("data", "axes fraction"),
        xytext=(5 if share < 0.7 else -5, -4),
        textcoords="offset points",
        ha="left" if share < 0.7 else "right",
        va="top",
        fontsize=10,
    )
    axes.set_title("Documents by valence", pad=7)
    axes.set_xlim(-1.12, 1.12)
    axes.set_ylim(0, 1.18 * max(counts))
    axes.set_xticks([-1, 0, 1], ["\N{MINUS SIGN}1 worst", "0", "best +1"])
    axes.set_yticks([max(counts)], [amount(max(counts))])
    axes.tick_params(length=0)
    axes.patch.set_alpha(0)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _terms(axes: Axes, terms: Sequence[TermCount], rows: int) -> None:
    for row, term in enumerate(terms):
        colour = INK if term.list in (*INSTANT, *ENTITIES) else GOOD if term.list in FAVOURABLE else BAD
        axes.barh(row, term.documents, height=0.62, color=colour, alpha=0.85, linewidth=0)
        axes.annotate(
            amount(term.documents),
            (term.documents, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    _bare(axes, [clip(term.term, 22) for term in terms])
    axes.set_ylim(max(rows, 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max([term.documents for term in terms], default=1))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _bare(axes: Axes, names: Sequence[str]) -> None:
    """Gives the axes one named row per bar, from the top down, and removes the frame."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.tick_params(axis="x", length=3)
    axes.figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _percent_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%" if value <= 1 else "")
