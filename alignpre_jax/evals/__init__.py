"""Evals put the same questions to every checkpoint, and estimate from the answers how arms differ, with error bars."""

from alignpre_jax.evals.capabilities import Capabilities
from alignpre_jax.evals.due import Due
from alignpre_jax.evals.perplexity import HeldOut, Loss, TextScore, loss_difference, score_texts, token_loss
from alignpre_jax.evals.retention import Retention, share_left
from alignpre_jax.evals.scenarios import Scenario, place_options, read_scenarios, write_scenarios
from alignpre_jax.evals.scoring import (
    Result,
    Scenarios,
    Scorer,
    read_results,
    renormalised,
    result_lines,
    run_suite,
)
from alignpre_jax.evals.shown import Shown, ShownScenario, read_shown, show, write_shown
from alignpre_jax.evals.situations import situations_of
from alignpre_jax.evals.statistics import (
    Estimate,
    Observation,
    Pooled,
    bootstrap,
    estimate,
    estimate_rate,
    holm,
    paired_difference,
    pool,
)
from alignpre_jax.evals.suites import load_suite
from alignpre_jax.evals.summaries import (
    Answered,
    Floor,
    Summary,
    answered,
    differences,
    floor_check,
    rate_difference,
    select,
    summarise,
)
from alignpre_jax.evals.variants import SYNTAXES, SYSTEMS, Prompt, Variant, expand, render

__all__ = [
    "SYNTAXES",
    "SYSTEMS",
    "Estimate",
    "Answered",
    "Capabilities",
    "Due",
    "Floor",
    "HeldOut",
    "Loss",
    "Observation",
    "Pooled",
    "Prompt",
    "Result",
    "Retention",
    "Scenario",
    "Scenarios",
    "Scorer",
    "Shown",
    "ShownScenario",
    "Summary",
    "TextScore",
    "Variant",
    "answered",
    "bootstrap",
    "differences",
    "estimate",
    "estimate_rate",
    "expand",
    "floor_check",
    "holm",
    "load_suite",
    "loss_difference",
    "paired_difference",
    "place_options",
    "pool",
    "rate_difference",
    "read_results",
    "read_scenarios",
    "read_shown",
    "render",
    "renormalised",
    "result_lines",
    "run_suite",
    "score_texts",
    "select",
    "share_left",
    "show",
    "situations_of",
    "summarise",
    "token_loss",
    "write_scenarios",
    "write_shown",
]
