"""This module sets several studies side by side, and pools the differences of arms that have the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from alignpre_jax.evals import Estimate, pool
from alignpre_jax.foundation import PathLike, UserError, write_bytes, write_json
from alignpre_jax.foundation.page import page_environment
from alignpre_jax.report.words import notice_words, percent, points, split_words


def compare_reports(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every study's rates and differences by split and arm, and each arm's pooled difference, as JSON-ready values.

    Pooling is by inverse variance and takes the studies to be independent: they have other seeds, or other models. A
    difference is pooled over the studies that have it, for arms and splits for which at least two studies do.

    Args:
      reports: the study's name -> its report, as `build_report` makes it.

    Raises:
      UserError: fewer than two studies.
    """
    if len(reports) < 2:
        raise UserError("one study is nothing to compare", where="alignpre report", fix="name two folders or more")
    splits = list(dict.fromkeys(split for report in reports.values() for split in report["splits"]))
    arms = list(dict.fromkeys(arm for report in reports.values() for arm in report["arms"]))
    lines = []
    for split in splits:
        for arm in arms:
            studies = {
                name: {"rate": report["arms"][arm][split], "paired": report["paired"].get(arm, {}).get(split)}
                for name, report in reports.items()
                if split in report["arms"].get(arm, {})
            }
            estimates = [_estimate(found["paired"]) for found in studies.values() if found["paired"]]
            line: dict[str, Any] = {"split": split, "arm": arm, "studies": studies, "pooled": None}
            if len(estimates) > 1:
                pooled = pool(estimates)
                line["pooled"] = {"diff": pooled.value, "ci95": [pooled.low, pooled.high], "i2": pooled.i2}
            lines.append(line)
    return {
        "studies": {
            name: {
                key: report[key]
                for key in ("name", "baseline", "headline", "node", "seeds", "findings", "notices", "reproduce")
            }
            for name, report in reports.items()
        },
        "splits": splits,
        "lines": lines,
    }


def write_comparison(reports: Mapping[str, Mapping[str, Any]], root: PathLike) -> dict[str, Any]:
    """Writes report.json and report.html of several studies into a folder, and returns the contents of report.json."""
    found = compare_reports(reports)
    write_json(epath.Path(root) / "report.json", found)
    write_bytes(epath.Path(root) / "report.html", render_comparison(found).encode())
    return found


def render_comparison(found: Mapping[str, Any]) -> str:
    """Renders the page of a comparison; all text is escaped by jinja2."""
    filters: dict[str, Callable[..., Any]] = {"percent": percent, "points": points, "split_words": split_words}
    filters["notice_words"] = notice_words
    return page_environment(__package__, filters).get_template("several.html.j2").render(found=found)


def _estimate(paired: Mapping[str, Any]) -> Estimate:
    low, high = paired["ci95"]
    return Estimate(paired["diff"], low, high, n=0, groups=0, seeds=0)
