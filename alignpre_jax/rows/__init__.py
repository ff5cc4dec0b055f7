"""Documents become rows: tokenizing, packing, and stores of rows with random access."""

from alignpre_jax.rows.build import build_rows
from alignpre_jax.rows.store import RowHeader, Rows, RowStore, Span, open_rows
from alignpre_jax.rows.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer, train_bpe

__all__ = [
    "END_OF_TEXT",
    "RowHeader",
    "RowStore",
    "Rows",
    "Span",
    "Tokenizer",
    "build_rows",
    "load_tokenizer",
    "open_rows",
    "train_bpe",
]
