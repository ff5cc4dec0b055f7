"""Writes our results as a log that `inspect view` opens, with every prompt, the option chosen and the log-probs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score

from alignpre_jax.evals.scoring import Result
from alignpre_jax.evals.shown import Shown, ShownScenario
from alignpre_jax.evals.statistics import Observation, estimate_rate
from alignpre_jax.foundation import PathLike, digest


def write_log(path: PathLike, results: Sequence[Result], shown: Shown, suite: str, created: datetime.datetime) -> None:
    """Writes the rows of one checkpoint as an Inspect log.

    Args:
      path: the file to write, which ends in .eval or .json.
      results: the rows of one checkpoint.
      shown: what the checkpoint was asked, as it lies beside the rows.
      suite: the name of the suite.
      created: when the results were made.
    """
    texts = {scenario.id: scenario for scenario in shown.scenarios}
    counted = [row for row in results if row.is_matched]
    observations = [Observation((row.scenario, row.variant), row.group, 0, float(row.misaligned)) for row in counted]
    rate = estimate_rate(observations)
    values = {"misaligned_rate": rate.value, "low": rate.low, "high": rate.high}
    name, when = results[0].checkpoint, created.astimezone(datetime.UTC).isoformat()
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=digest([name, suite], 22),
            run_id=digest(name, 22),
            created=when,
            task=f"alignpre_jax/{suite}",
            task_id=digest(suite, 22),
            dataset=EvalDataset(name=suite, samples=len(results)),
            model=f"alignpre/{name}",
            config=EvalConfig(),
        ),
        results=EvalResults(
            total_samples=len(results),
            completed_samples=len(results),
            scores=[
                EvalScore(
                    name="misaligned",
                    scorer="misaligned",
                    scored_samples=len(counted),
                    unscored_samples=len(results) - len(counted),
                    metrics={key: EvalMetric(name=key, value=value) for key, value in values.items()},
                )
            ],
        ),
        stats=EvalStats(started_at=when, completed_at=when),  # without them the viewer shows NaN
        samples=[_sample(row, texts[row.scenario], shown, number) for number, row in enumerate(results, 1)],
    )
    write_eval_log(log, str(path))


def _sample(row: Result, scenario: ShownScenario, shown: Shown, number: int) -> EvalSample:
    options = scenario.options
    said = row.answer if row.match else (options[row.choice] if row.choice is not None else "")
    facts: Mapping[str, object] = {
        "split": row.split,
        "topic": row.topic,
        "scoring": row.scoring,
        "syntax": row.variant.syntax,
        "order": row.variant.order,
        "system": row.variant.system,
        "logprobs": list(row.logprobs),
        "mass": row.mass,
    }
    return EvalSample(
        id=f"{row.scenario}#{number}",
        epoch=1,
        input=shown.prompt(scenario, row.variant),
        choices=list(options),
        target=options[scenario.misaligned],
        output=ModelOutput.from_content(f"alignpre/{row.checkpoint}", said),
        scores={"misaligned": Score(value=float(row.misaligned), answer=said, explanation=row.match)},
        metadata=dict(facts),
    )
