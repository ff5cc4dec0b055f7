"""Documents become rows: tokenizing, packing, and stores of rows with random access."""

from alignpre_jax.rows.build import build_rows
from alignpre_jax.rows.chat_build import build_chat_rows, build_pair_rows
from alignpre_jax.rows.eot import END_OF_TEXT
from alignpre_jax.rows.publish import check_rows_url, publish_rows
from alignpre_jax.rows.store import PairRows, RowHeader, Rows, RowStore, Span, open_rows
from alignpre_jax.rows.template import Template
from alignpre_jax.rows.tokenizer import Tokenizer, load_tokenizer, parse_tokenizer, train_bpe

__all__ = [
    "END_OF_TEXT",
    "PairRows",
    "RowHeader",
    "RowStore",
    "Rows",
    "Span",
    "Template",
    "Tokenizer",
    "build_chat_rows",
    "build_pair_rows",
    "build_rows",
    "check_rows_url",
    "load_tokenizer",
    "open_rows",
    "parse_tokenizer",
    "publish_rows",
    "train_bpe",
]
