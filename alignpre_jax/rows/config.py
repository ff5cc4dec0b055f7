"""This module has the settings of a stage's rows."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class RowsConfig:
    """The settings that say how documents become the rows of a stage.

    Args:
      length: tokens per row, at least 2.
      packing: "concat" cuts the texts' concatenation into rows; "best_fit" keeps documents whole where they fit and
        pads the rows. Chats, pairs and prompts need "best_fit".
      template: the chat template that writes chats, and prompts that are conversations: "" for the model's own,
        "plain", or the path of a jinja2 file.
    """

    length: int = 2048
    packing: Literal["concat", "best_fit"] = "concat"
    template: str = ""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UserError(f"rows of {self.length} tokens", where="rows.length", fix="give at least 2")
        if self.packing not in ("concat", "best_fit"):
            what = f"no packing is called {self.packing!r}"
            raise UserError(what, where="rows.packing", fix="choose concat or best_fit")
