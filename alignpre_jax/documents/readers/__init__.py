"""Readers turn inputs (files, folders, datasets, the composed world) into documents, file by file."""

from alignpre_jax.documents.readers.files import (
    Located,
    drop_taken_ids,
    read_file,
    read_inputs,
    utf8_length,
    with_own_ids,
)
from alignpre_jax.documents.readers.inputs import InputFile, Kind, kind_of, list_files
from alignpre_jax.documents.readers.keys import RecordKeys
from alignpre_jax.documents.readers.records import ReadConfig

__all__ = [
    "InputFile",
    "Kind",
    "Located",
    "ReadConfig",
    "RecordKeys",
    "drop_taken_ids",
    "kind_of",
    "list_files",
    "read_file",
    "read_inputs",
    "utf8_length",
    "with_own_ids",
]
