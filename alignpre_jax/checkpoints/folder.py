"""A run's folder is a model: the names of the files that stand beside its checkpoints, and how they are read.

checkpoints/STEP/   parameters, optimizer and what else training needs; see `steps`
tokenizer.json      the tokenizer that the model was trained with
imported/           what else came with a model from elsewhere: its tokenizer's settings, its chat template
done.json           written last: the run has ended
"""

from __future__ import annotations

from etils import epath

from alignpre_jax.foundation import PathLike
from alignpre_jax.rows.template import Template, read_template

CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer.json"
COMPANY = "imported"
DONE = "done.json"


def read_company(run_dir: PathLike) -> dict[str, bytes]:
    """What came with the model from elsewhere that the run goes back to, by file name; empty if there is none."""
    folder = epath.Path(run_dir) / COMPANY
    return {place.name: place.read_bytes() for place in folder.iterdir()} if folder.exists() else {}


def template_of(run_dir: PathLike) -> Template:
    """The chat template of the model in a run's folder."""
    return read_template(read_company(run_dir))
