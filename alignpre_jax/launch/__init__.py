"""This room decides where jobs run: sweeps, their queue, this machine, and the clouds' TPUs."""

from alignpre_jax.launch.experiment import Bundle, Experiment, Task, bundles, plan_experiment
from alignpre_jax.launch.local import run, run_tasks
from alignpre_jax.launch.sweep import Point, chain, load_sweep, parse_sweep, product, values, zipped

__all__ = [
    "Bundle",
    "Experiment",
    "Point",
    "Task",
    "bundles",
    "chain",
    "load_sweep",
    "parse_sweep",
    "plan_experiment",
    "product",
    "run",
    "run_tasks",
    "values",
    "zipped",
]
