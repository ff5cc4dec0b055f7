"""The text of an audit fits a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignpre_jax.documents.audit.records import Audit, Example, SourceAudit
from alignpre_jax.documents.audit.words import amount, clip, headline, interval, percent, signed, size
from alignpre_jax.documents.discourse import ENTITIES, INSTANT

_STYLES = {"ai": "bold", "bad": "bold red", "good": "bold green"}
_TERMS = 10


def terminal_audit(audit: Audit) -> RenderableType:
    """Returns the shares by source, the top terms, the thresholds, and one example of each kind."""
    parts: list[RenderableType] = [_shares(audit), Text("")]
    total = audit.total
    if total.valence:
        parts += [_top_terms(total), Text(""), _thresholds(total), Text("")]
        for title, examples in (("worst said", total.negative), ("best said", total.positive), ("any", total.random)):
            parts += [line for example in examples[:1] for line in _example(title, example)]
    parts.append(Text(headline(audit), style="bold"))
    if total.bad_records:
        first = total.bad[0]
        words = (
            f"{total.bad_records:,} of {total.records:,} records could not be read, e.g. {first.place}: {first.reason}"
        )
        parts.append(Text(f"! {words}", style="yellow"))
    return Group(*parts)


def _shares(audit: Audit) -> Table:
    table = Table(title="AI discourse by source", title_justify="left", title_style="bold")
    table.add_column("source", style="bold", max_width=16, overflow="fold")
    for name in ("documents", "text", "% docs", "% bytes", "valence", "language"):
        table.add_column(name, justify="right", no_wrap=name != "% docs")
    sources = list(audit.sources.values())
    for source in [*sources, audit.total] if len(sources) > 1 else sources:
        share = source.discourse
        cell = Text(percent(share.of_documents))
        if share.documents_ci95:
            cell.append(f"\n{interval(share.documents_ci95)}", style="dim")
        language = next(iter(source.languages.items()), ("", 0.0))
        table.add_row(
            Text(clip(source.name, 40)),
            amount(source.read_documents),
            size(source.read_bytes),
            cell,
            percent(share.of_bytes),
            _valence(source),
            f"{language[0]} {percent(language[1], 0)}",
            end_section=source is sources[-1],
        )
    return table


def _valence(source: SourceAudit) -> Text:
    if source.valence is None:
        return Text("-", style="dim")
    mean = source.valence.mean
    return Text(signed(mean), style="red" if mean < -0.05 else "green" if mean > 0.05 else "")


def _top_terms(total: SourceAudit) -> Table:
    table = Table(title="Top terms (documents)", title_justify="left", title_style="bold", show_header=True)
    named = [term for term in total.terms if term.list in (*INSTANT, *ENTITIES)][:_TERMS]
    words = [term for term in total.terms if term.list not in (*INSTANT, *ENTITIES)][:_TERMS]
    for title in ("AI is called", "", "said with it", ""):
        table.add_column(title, justify="left" if title else "right", no_wrap=True)
    for row in range(max(len(named), len(words))):
        cells: list[Text | str] = []
        for terms in (named, words):
            cells += [Text(clip(terms[row].term, 26)), amount(terms[row].documents)] if row < len(terms) else ["", ""]
        table.add_row(*cells)
    return table


def _thresholds(total: SourceAudit) -> Table:
    table = Table(title="Flagged, if more terms were asked for", title_justify="left", title_style="bold")
    for threshold in total.thresholds:
        table.add_column(f"≥ {threshold.terms}", justify="right")
    table.add_row(*(percent(threshold.share.of_documents) for threshold in total.thresholds))
    return table


def _example(title: str, example: Example) -> list[Text]:
    lines = [Text.assemble((f"{title}  ", "bold"), (f"{clip(example.id, 60)}  {clip(example.place, 100)}", "dim"))]
    for passage in example.passages[:1]:
        text = Text("  ")
        done = 0
        for start, end, kind in passage.marks:
            text.append(clip(passage.text[done:start].replace("\n", " "), 400))
            text.append(clip(passage.text[start:end].replace("\n", " "), 100), style=_STYLES[kind])
            done = end
        lines.append(text.append(clip(passage.text[done:].replace("\n", " "), 400)))
    return [*lines, Text("")]
