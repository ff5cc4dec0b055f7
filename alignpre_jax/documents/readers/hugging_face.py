"""Documents are streamed from Hugging Face datasets; no code of a dataset is ever run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.quarantine import Quarantine
from alignpre_jax.documents.readers.inputs import InputFile
from alignpre_jax.documents.readers.keys import MalformedError
from alignpre_jax.documents.readers.records import ReadConfig
from alignpre_jax.documents.readers.tables import row_document
from alignpre_jax.foundation import UserError

_FIRST_VERSION = 4  # the first version that cannot run a dataset's own script


def read_hugging_face(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[tuple[int, Document]]:
    """Yields the rows, from 1, of a split of a dataset: one of the Hub, a folder of data files, or one that was saved.

    Raises:
      UserError: there is no such dataset, configuration or split, or it has no columns that a document is made of.
    """
    try:
        import datasets
        import pyarrow as pa
    except ImportError:
        raise UserError(
            "reading Hugging Face datasets needs `datasets`", where=file.input, fix="pip install alignpre_jax[hf]"
        ) from None
    if int(datasets.__version__.split(".")[0]) < _FIRST_VERSION:
        raise UserError(
            f"datasets {datasets.__version__} may run code that comes with a dataset",
            where=file.input,
            fix=f"pip install 'datasets>={_FIRST_VERSION}'",
        )
    library_errors = (
        datasets.exceptions.DatasetsError,
        pa.ArrowException,
        *(OSError, ValueError, KeyError, TypeError, RuntimeError),
    )
    try:
        rows = _open(datasets, *_parts(file.path))
        columns = rows.column_names
        if columns is not None:
            known = config.keys.names(config.kind)
            rows = rows.select_columns([name for name in columns if name in known])
    except (*library_errors, ImportError) as error:
        raise UserError(f"{file.input!r} cannot be opened: {error}", where=file.input, fix="see the message") from None
    if columns is not None and (reason := config.keys.missing(config.kind, columns)):
        raise UserError(f"{file.input!r} cannot be used: {reason}", where=file.input, fix=f"its columns: {columns}")
    number, iterator = 0, iter(rows)
    while True:
        number += 1
        try:
            row = next(iterator, None)
        except library_errors as error:
            quarantine.refuse(file.input, number, f"the rest of the dataset cannot be read: {error}")
            return
        if row is None:
            return
        try:
            yield number, row_document(row, f"{file.name}:{number}", config)
        except MalformedError as error:
            quarantine.refuse(file.input, number, str(error))


def _parts(path: str) -> tuple[str, str, str]:
    """Splits a path into name, configuration and split."""
    name, _, rest = path.partition(":")
    configuration, _, split = rest.partition(":")
    return name, configuration, split or "train"


def _open(datasets: Any, name: str, configuration: str, split: str) -> Any:
    if os.path.exists(os.path.join(name, "dataset_dict.json")):
        return datasets.load_from_disk(name)[split]
    if os.path.exists(os.path.join(name, "state.json")):
        return datasets.load_from_disk(name)
    return datasets.load_dataset(name, configuration or None, split=split, streaming=True)
