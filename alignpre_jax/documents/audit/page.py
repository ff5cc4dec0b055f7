"""The page shows an audit as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from alignpre_jax.documents.audit.figures import figures, shown_sources
from alignpre_jax.documents.audit.records import Audit, Passage
from alignpre_jax.documents.audit.words import (
    LISTS,
    amount,
    clip,
    headline,
    interval,
    method,
    percent,
    signed,
    size,
    tone,
)
from alignpre_jax.foundation.page import page_environment

_LANGUAGES = 8  # languages shown per source


def render_page(audit: Audit) -> str:
    """Renders the page of an audit.

    Jinja2 escapes all text; the figures are the only markup that is put in unescaped.
    """
    sources = list(audit.sources.values())
    return (
        page_environment(__package__, _FILTERS)
        .get_template("audit.html.j2")
        .render(
            audit=audit,
            total=audit.total,
            rows=[*sources, audit.total] if len(sources) > 1 else sources,
            hidden=max(0, len(sources) + 1 - len(shown_sources(audit))) if len(sources) > 1 else 0,
            figures={layout: _markup(figures(audit, layout)) for layout in ("wide", "narrow")},
            headline=headline(audit),
            tone=tone(audit.total) if audit.total.valence else "",
            method=method(audit),
            lists=LISTS,
            languages_shown=_LANGUAGES,
        )
    )


def _markup(drawn: dict[str, str]) -> dict[str, Markup]:
    return {name: Markup(svg) for name, svg in drawn.items()}


def _marked(passage: Passage) -> Markup:
    """Returns a passage as escaped HTML in which the listed terms are marked."""
    parts, done = [], 0
    for start, end, kind in passage.marks:
        parts += [Markup.escape(passage.text[done:start])]
        parts += [Markup('<mark class="{}">{}</mark>').format(kind, passage.text[start:end])]
        done = end
    return Markup().join([*parts, Markup.escape(passage.text[done:])])


_FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent,
    "amount": amount,
    "size": size,
    "signed": signed,
    "interval": interval,
    "clip": clip,
    "marked": _marked,
}
