"""The report as a CSV table of every rate and difference, and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.report.words import percent, points, signed, split_words

COLUMNS = (
    *("eval", "arm", "split", "topic", "n", "situations", "misaligned_rate", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)


def csv_table(report: Mapping[str, Any]) -> str:
    """One line per eval, arm and split, then one per topic of the headline; an empty topic means all of them."""
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for name, found in report["scorings"].items():
        for arm, splits in found["arms"].items():
            for split, figures in splits.items():
                difference = found["paired"].get(arm, {}).get(split)
                table.writerow(_line(name, arm, split, "", figures, difference))
    for line in report["topics"]:
        for arm, figures in line["arms"].items():
            difference = line["paired"].get(arm)
            table.writerow(_line(report["headline"], arm, line["split"], line["topic"], figures, difference))
    return out.getvalue()


def markdown(report: Mapping[str, Any]) -> str:
    """The headline, the tax, findings, notices, methods and the command."""
    splits = report["splits"]
    parts = [f"# {_plain(report['name'])}", "## What was found"]
    parts.append("\n".join(f"- **{_plain(one['arm'])}** {_plain(one['text'])}" for one in report["findings"]))
    if report["notices"]:
        parts.append(
            "\n".join(f"- Scoring by {_plain(one['eval'])} {_plain(one['text'])}" for one in report["notices"])
        )
    parts.append(f"## Misaligned rate, scored by {_plain(report['headline'])}")
    head = ["arm", *(part for split in splits for part in (split_words(split), f"less {report['baseline']}, points"))]
    rows = []
    for arm, of_arm in report["arms"].items():
        cells = [arm]
        for split in splits:
            rate, difference = of_arm[split], report["paired"].get(arm, {}).get(split)
            low, high = rate["ci95"]
            cells.append(f"{percent(rate['misaligned_rate'])} [{percent(low)}, {percent(high)}]")
            cells.append(_difference(difference))
        rows.append(cells)
    parts.append(_table(head, rows))
    if report["tax"]["arms"]:
        parts.append(f"## Alignment tax, {report['tax']['unit']}")
        parts.append(_table(["arm", "text", "loss", "difference"], _tax_rows(report["tax"]["arms"])))
    if report["tax"].get("tasks"):
        rows = [
            [arm, task, percent(figures["accuracy"]["value"]), percent(figures["accuracy_norm"]["value"])]
            for arm, tasks in report["tax"]["tasks"].items()
            for task, figures in tasks.items()
        ]
        parts.append(_table(["arm", "task", "accuracy", "accuracy by character"], rows))
    parts += ["## Methods", *map(_plain, report["methods"]), "## Make it again", f"```\n{report['reproduce']}\n```"]
    return "\n\n".join(parts) + "\n"


def _line(name: str, arm: str, split: str, topic: str, figures: Mapping[str, Any], difference: Any) -> dict[str, Any]:
    low, high = figures["ci95"]
    line = {"eval": name, "arm": arm, "split": split, "topic": topic, "low": low, "high": high}
    line |= {key: figures[key] for key in ("n", "situations", "misaligned_rate")}
    if difference:
        line |= {"difference": difference["diff"], "p": difference.get("p"), "p_holm": difference.get("p_holm")}
        line["difference_low"], line["difference_high"] = difference["ci95"]
    return line


def _tax_rows(arms: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for arm, sources in arms.items():
        for source, figures in sources.items():
            change = ""
            if "diff" in figures:
                low, high = figures["diff_ci95"]
                change = f"{signed(figures['diff'])} [{signed(low)}, {signed(high)}]"
            rows.append([arm, source, f"{figures['loss']:.4f}", change])
    return rows


def _difference(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    low, high = figures["ci95"]
    return f"{points(figures['diff'])} [{points(low)}, {points(high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text if text == "---" else re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text.replace("\n", " "))
