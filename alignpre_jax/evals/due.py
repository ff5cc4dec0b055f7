"""Defines the fields, common to all kinds of evals, that say where in a study an eval is asked."""

from __future__ import annotations

import dataclasses

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Due:
    """The stages of a study at which an eval is asked, and how often while they train."""

    at: tuple[str, ...] = ()  # stages whose last checkpoint is asked; empty: the leaves of the tree
    every_steps: int = 0  # ask during the training of these stages as well (of all, where `at` is empty), this often
    every_tokens: int = 0  # the same, by tokens

    def __post_init__(self):
        if self.every_steps < 0 or self.every_tokens < 0:
            what = "evals cannot be due before they are"
            raise UserError(what, where="every_steps and every_tokens", fix="give 0 or more")

    @property
    def is_in_loop(self) -> bool:
        """Whether the eval is asked during training as well."""
        return bool(self.every_steps or self.every_tokens)
