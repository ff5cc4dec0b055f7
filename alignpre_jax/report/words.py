"""The sentences of a report. They are made from the numbers; nothing here knows which arm should win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.report.records import StudyRecords
from alignpre_jax.study.config import ArmConfig

SPLIT_MEANINGS = {
    "held_out": "situations and topics that no training document tells of",
    "seen": "situations that training documents tell of",
    "control": "situations about people instead of AIs",
    "over_refusal": "requests that are fine; the option counted as misaligned is the needless refusal or evasion",
}
SCORING_MEANINGS = {
    "options": "The two options are not shown; the model's choice is the one whose text it finds likelier per byte.",
    "letters": "The options are shown as (A) and (B); the model's choice is the letter it finds likelier.",
    "generation": "The options are shown; the model writes, and its choice is read from what it wrote.",
}


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f}%"


def points(value: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign; 0 without decimals is exactly 0."""
    return signed(100 * value, digits)


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; 0 without decimals is exactly 0."""
    if value == 0:
        return "0"
    scaled = round(value, digits)
    return f"{scaled:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if scaled else f"{0:.{digits}f}"


def split_words(split: str) -> str:
    """A split's name in words."""
    return split.replace("_", "-")


def finding(
    arm: str,
    baseline: str,
    split: str,
    rate: Mapping[str, Any],
    base: Mapping[str, Any],
    difference: Mapping[str, Any],
) -> dict[str, Any]:
    """What the paired difference says, and which way: lower, higher, none (not shown) or same (exactly equal)."""
    low, high = difference["ci95"]
    rates = f"{percent(rate['misaligned_rate'])} against {percent(base['misaligned_rate'])}"
    interval = f"{points(difference['diff'])} points (95% interval {points(low)} to {points(high)})"
    if low == high == 0:
        way, text = "same", f"makes the same choices as {baseline}: {rates}, a difference of exactly 0."
    elif high < 0:
        way, text = "lower", f"is misaligned less often than {baseline}: {rates}, {interval}."
    elif low > 0:
        way, text = "higher", f"is misaligned more often than {baseline}: {rates}, {interval}."
    else:
        way, text = "none", f"shows no clear difference from {baseline}: {rates}, {interval}."
    return {"arm": arm, "split": split, "way": way, "text": text}


def floor_notices(name: str, floors: Mapping[str, Mapping[str, Any]], arms: Sequence[str]) -> list[dict[str, Any]]:
    """What a reader must know about an eval that is at its floor: one notice for all splits with the same trouble."""
    groups: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for split, floor in floors.items():
        if floor["reason"]:
            groups.setdefault((floor["at_floor"], tuple(floor["arms"])), []).append(split)
    notices = []
    for (at_floor, affected), splits in groups.items():
        who = "" if len(affected) == len(arms) else f" for {', '.join(affected)}"
        where = join([split_words(split) for split in splits])
        reason = floors[splits[0]]["reason"]
        shown = f"(on {split_words(splits[0])}) " if len(splits) > 1 else ""
        end = " Chance alone would look the same." if at_floor else ""
        text = f"on {where} items is at its floor{who}: {shown}{reason}.{end}"
        notices.append({"eval": name, "splits": splits, "at_floor": at_floor, "arms": list(affected), "text": text})
    return notices


def join(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def methods(records: StudyRecords, splits: Sequence[str]) -> list[str]:
    """The methods, every setting named, as paragraphs."""
    return [_training(records), _evals(records, splits), _statistics(records)]


def _training(records: StudyRecords) -> str:
    config = records.config
    stages = ", then ".join(
        f"{name} ({stage.slots * stage.row_length:,} tokens in {stage.steps:,} steps of {stage.batch_rows} rows of"
        f" {stage.row_length}, mixture {stage.mixture}, objective {stage.objective.name})"
        for name, stage in config.stages.items()
    )
    changes = "; ".join(f"{name} {_change(arm)}" for name, arm in config.arms.items())
    model = config.model
    return (
        f"Every arm is a decoder with {model.num_params():,} parameters ({model.layers} layers of width {model.width},"
        f" vocabulary {model.vocab_size:,}), trained through {stages}, with {len(config.seeds)} seed(s):"
        f" {', '.join(map(str, config.seeds))}. Arms: {changes}. Within a seed all arms start from the same weights and"
        " see the same background rows in the same slots; a dose replaces slots, and nothing else moves."
    )


def _change(arm: ArmConfig) -> str:
    parts = []
    for stratum, refill, keep in arm.removals:
        leak = f", but for {percent(keep, 2)} of it that leaks" if keep else ""
        parts.append(f"refills the slots of {stratum} with {refill}{leak}")
    if arm.source:
        when = f" (schedule {arm.schedule})" if arm.schedule else ""
        parts.append(f"replaces {100 * arm.dose:g}% of the tokens with {arm.source}{when}")
    return f"{' and '.join(parts)} in {', '.join(arm.placement)}" if parts else "is trained on the mixture as it is"


def _evals(records: StudyRecords, splits: Sequence[str]) -> str:
    config = records.config.evals
    rows = next(iter(records.results[records.config.baseline].values()))
    counts = []
    for split in splits:
        of_split = [row for row in rows if row.split == split]
        scenarios, groups = len({row.scenario for row in of_split}), len({row.group for row in of_split})
        meaning = f": {SPLIT_MEANINGS[split]}" if split in SPLIT_MEANINGS else ""
        counts.append(f"{split} ({scenarios} scenarios of {groups} situations{meaning})")
    scorings = " ".join(
        f"{scoring.capitalize()} ({', '.join(s for s in config.syntaxes if s.startswith(scoring))}):"
        f" {SCORING_MEANINGS[scoring]}"
        for scoring in config.scorings
    )
    orders = " Letters are asked in both orders of the options." if "letters" in config.scorings else ""
    if "options" in config.scorings and config.options_by != "byte":
        orders += f" In this study options are compared by {config.options_by}, not per byte."
    if "generation" in config.scorings:
        orders += (
            f" Answers are generated greedily, at most {config.max_new_tokens} tokens; those that name no option are"
            " left out, and a syntax with a fifth of them or more is dropped."
        )
    if config.chat_template:
        orders += f" Prompts are a user's message in the chat template {config.chat_template!r}."
    if config.scenarios_per_split:
        orders += f" Of each split the first {config.scenarios_per_split} scenarios are asked."
    if config.every_steps or config.every_tokens:
        often = f"{config.every_steps:,} steps" if config.every_steps else f"{config.every_tokens:,} tokens"
        orders += f" The headline is also scored during training, every {often}."
    if config.capabilities:
        orders += (
            f" Capability tasks, zero-shot, as the lm-evaluation-harness asks them: {', '.join(config.capabilities)}."
        )
    return (
        f"Suite {config.suite}, two options per scenario, one aligned and one misaligned: {', '.join(counts)}."
        f" {scorings}{orders} System prompts: {', '.join(config.systems)}. The misaligned rate is the share of answers"
        f" that are the misaligned option; the headline is the scoring by {config.headline}."
    )


def _statistics(records: StudyRecords) -> str:
    seeds = len(records.config.seeds)
    ways = (
        "two-way cluster-robust intervals, by situation and by seed (Cameron, Gelbach & Miller 2011; Miller 2024), each"
        f" way with its own t quantile, {seeds - 1} degree(s) of freedom for seeds (Banerjee 1960)"
        if seeds > 1
        else "cluster-robust intervals by situation (Miller 2024). With one seed they say nothing about how another"
        " seed's model would answer"
    )
    return (
        f"Intervals are 95% {ways}. Rates have Wilson intervals with the effective sample size. Differences are paired:"
        f" an arm less {records.config.baseline} on the same scenario, prompt and seed. p-values are those of the"
        " intervals; for the family of arms they are corrected by Holm's method (1979). The alignment tax is the"
        " difference in loss per token on background text that was held out,"
        " clustered by document and seed."
    )
