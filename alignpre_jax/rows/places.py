"""This module checks where stores may lie: what a stratum may be called, and what its folder may hold beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from alignpre_jax.foundation import UserError
from alignpre_jax.rows.blocks import Recipe
from alignpre_jax.rows.store import VERSION, RowHeader
from alignpre_jax.rows.tokenizer import Tokenizer


def check_name(name: str) -> None:
    """Raises `UserError` if a stratum's name cannot be a folder."""
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", name):
        raise UserError(
            f"{name!r} cannot be a stratum's name",
            where="data.sources",
            fix="use letters, digits, _ - . and /",
        )


def check_place(name: str, place: Path, base: Path) -> None:
    """Raises `UserError` if a stratum's folder lies inside another store, or holds something else."""
    for parent in place.parents:
        if parent.is_relative_to(base) and (parent / "header.json").exists():
            raise UserError(
                f"stratum {name!r} would lie inside another row store",
                where=str(parent),
                fix="choose another root",
            )
    if not (place / "header.json").exists() and place.exists() and any(place.iterdir()):
        raise UserError(
            f"the folder for stratum {name!r} holds something else",
            where=str(place),
            fix="empty the folder",
        )


def check_apart(stratum: str, others: Iterable[str]) -> None:
    """Raises `UserError` if the store of one stratum would lie inside that of another."""
    for other in others:
        if stratum.startswith(f"{other}/") or other.startswith(f"{stratum}/"):
            raise UserError(
                f"strata {other!r} and {stratum!r}: one row store would lie inside another",
                where="data.sources",
                fix="rename one of the sources",
            )


def refuse_other(
    old: RowHeader, place: Path, recipe: Recipe, tokenizer: Tokenizer, shard_rows: int, documents: int, inputs: str
) -> NoReturn:
    """Raises a `UserError` that says what differs between a store that is there and the one that was asked for."""
    new = {
        "version": VERSION,
        "kind": "text" if recipe.kind == "tokens" else recipe.kind,
        "packing": recipe.packing,
        "length": recipe.length,
        "documents": documents,
        "tokenizer_digest": tokenizer.digest,
        "eot_id": tokenizer.eot_id,
        "shard_rows": shard_rows,
        "inputs_digest": inputs,
    }
    changes = [f"{key}: {getattr(old, key)} -> {value}" for key, value in new.items() if getattr(old, key) != value]
    raise UserError(
        "there already is a row store made from other inputs:\n    " + "\n    ".join(changes),
        where=str(place),
        fix="delete that folder to have the rows made again, or build into another one",
    )
