"""What a job's outputs depend on, as one short digest: jobs of two studies with the same key make the same files."""

from __future__ import annotations

from alignpre_jax.foundation import digest, to_mapping
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.graph import StageRun, jobs, stage_runs


def job_keys(config: StudyConfig) -> dict[str, str]:
    """The key of every job by its name: 16 hex digits.

    Whatever is in the config and could change a job's files is in its key, and no name of an arm or a study is.
    """
    model = to_mapping(config.model)
    lengths = sorted({stage.row_length for stage in config.stages.values()})
    imported = digest(["import", config.init_from, model])
    data = digest(["prepare", to_mapping(config.data), config.model.vocab_size, lengths, config.init_from, imported])
    runs = stage_runs(config)

    def train_key(run: StageRun) -> str:
        stages = [to_mapping(config.stages[stage]) for stage, _ in run.path]
        overlays = [[[type(each).__name__, to_mapping(each)] for each in found] for _, found in run.path]
        how = [model, to_mapping(config.optimizer), to_mapping(config.training)]
        if config.evals.every_steps or config.evals.every_tokens:
            how.append(to_mapping(config.evals))  # evals during training are in the run's folder
        return digest(["train", data, *how, run.seed, [stage for stage, _ in run.path], stages, overlays])

    trained = {name: train_key(run) for name, run in runs.items()}
    keys = {}
    for job in jobs(config).values():
        if job.kind == "import":
            keys[job.name] = imported
        elif job.kind == "prepare":
            keys[job.name] = data
        elif job.kind == "train":
            keys[job.name] = digest([trained[run] for run in job.runs]) if job.others else trained[job.run]
        else:
            keys[job.name] = digest(["eval", trained[job.run], to_mapping(config.evals)])
    return keys
