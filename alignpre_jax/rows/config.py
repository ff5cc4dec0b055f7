"""How a stage's documents become rows."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class RowsConfig:
    """The rows that one stage of training reads."""

    length: int = 2048  # tokens per row
    packing: Literal["concat", "best_fit"] = "concat"  # of texts, see `build_rows`; chats and pairs are always best_fit
    template: str = ""  # of chats and pairs: "" is the model's own, or "plain", or the path of a Jinja file

    def __post_init__(self):
        if self.length < 2:
            raise UserError(f"rows of {self.length} tokens", where="length", fix="give at least 2")
