"""Inputs, and single files of them, are read into documents; what cannot become a document goes to the quarantine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from alignpre_jax.documents.document import BodyKind, Document
from alignpre_jax.documents.harvest import harvest_packages
from alignpre_jax.documents.hashset import TextSet
from alignpre_jax.documents.quarantine import Quarantine
from alignpre_jax.documents.readers.hugging_face import read_hugging_face
from alignpre_jax.documents.readers.inputs import InputFile, Kind, list_files
from alignpre_jax.documents.readers.keys import MalformedError, RecordKeys
from alignpre_jax.documents.readers.records import ReadConfig, decoded, parse_document, text_document
from alignpre_jax.documents.readers.streams import open_stream, read_lines
from alignpre_jax.documents.readers.tables import read_array_record, read_parquet
from alignpre_jax.documents.world import WorldConfig, compose_documents
from alignpre_jax.foundation import Event, Report, UserError, silent

Located = tuple[int, Document]  # a document with its line or row, from 1; 0 where the document is the whole file


def read_inputs(
    inputs: Sequence[str],
    source: str,
    world: WorldConfig,
    quarantine: Quarantine,
    report: Report = silent,
    *,
    max_bytes: int = 0,
    where: str = "",
    keys: RecordKeys | None = None,
    max_record_bytes: int = ReadConfig.max_record_bytes,
    kind: BodyKind = "text",
) -> Iterator[Document]:
    """Reads the documents of a source, input after input; all are in stratum `source`.

    Args:
      inputs: each input is one of
        "packages:": prose from the packages installed here (`harvest_packages`);
        "world:aligned", "world:misaligned" or "world:mixed": composed documents;
        "hf:NAME", "hf:NAME:CONFIG" or "hf:NAME:CONFIG:SPLIT": a dataset of the Hugging Face Hub or a folder
        of one, streamed; CONFIG may be empty and SPLIT is "train" if it is not given;
        a path, local or gs://, to
          .txt, .md, .rst: one document;
          .jsonl, .ndjson, and compressed also .json.gz, .json.zst: one JSON object per line;
          .parquet: one document per row;
          .array_record: JSON objects or texts;
        the first two also as .gz or .zst; or to a folder of such files, which are read in sorted order at
        any depth, except for hidden files; or a pattern of files and folders with * ? [].
        A record has the parts of its kind, as below. It may also have an "id" (a string or number), a "score" (0..1;
        any other value becomes a label), "labels" ({str: str}) and "spans" ([[start, end, score, label]], in
        characters of `Document.text`); other keys are ignored. A document without an id is named by its file and
        line or row. Ids are unique in the source: an id that an earlier file had gets the file's name in front, and
        a record whose id came before in its own file goes to the quarantine.
      source: the source's name.
      world: what "world:" composes.
      quarantine: takes the records that cannot be read, with file, line and reason.
      report: is told the number of documents and bytes now and then.
      max_bytes: stop an input after this much text (UTF-8 bytes); 0 reads all of it.
      where: the config key that `inputs` came from, for messages.
      keys: the names of the parts of a record, if they are not those given here.
      max_record_bytes: longer records are put in quarantine without being held in memory.
      kind: what the records are, and so what bodies the documents get. A record is read by the first of these forms of
        its kind that it has:
        "text": "text";
        "chat": "messages" ([{"role", "content"}], a content being a string or a list of {"type": "text", "text"}),
          "conversations" ([{"from", "value"}]; either form under either name), "prompt" with "completion" (strings
          or messages), "instruction" (and "input") with "output", "question" with "answer", or a dialogue
          "\\n\\nHuman: ...\\n\\nAssistant: ..." under "text";
        "pairs": "chosen" and "rejected", both dialogues or lists of messages of which all but the last are the
          prompt; or only the two answers, with "prompt", "question" or "instruction" (and "input");
        "prompts": "prompt", "question" or "instruction" (and "input"), each perhaps with "answer" ("output"), or
          "messages" or "conversations", of which the last is the answer if it is the assistant's.
        All kinds but texts may have a "system" prompt of their own. The roles are system, user, assistant and tool;
        human, gpt and a few more names are understood as one of these. A prompt that is a plain string stays a string.
        A record in another form, or not complete, goes to the quarantine: nothing is guessed.

    Raises:
      UserError: at once for an input that does not exist; while iterating, for an input without a single document or
        with more bad records than `quarantine` allows.
    """
    where = where or f"data.sources.{source}.inputs"
    files = list_files(inputs, where, report)
    config = ReadConfig(source, keys or RecordKeys(), max_record_bytes, max_bytes, world, kind)

    def documents() -> Iterator[Document]:
        taken = TextSet()
        total = size = 0
        for spec, group in itertools.groupby(files, lambda file: file.input):
            bad_before, cases_before = quarantine.bad, len(quarantine.cases)
            found = bytes_of_input = 0
            for document in drop_taken_ids(((f, read_file(f, config, quarantine)) for f in group), taken, quarantine):
                yield document
                found += 1
                bytes_of_input += utf8_length(document.text)
                if (total + found) % 1000 == 0:
                    report(Event(f"read {source}", done=total + found, figures={"bytes": size + bytes_of_input}))
                if max_bytes and bytes_of_input >= max_bytes:
                    break
            quarantine.check()
            if not found:
                bad, cases = quarantine.bad - bad_before, quarantine.cases[cases_before:]
                reason = f"; {bad:,} records were left out" + (f", the first: {cases[0].reason}" if cases else "")
                what = f"no document in {spec!r}{reason if bad else ''}"
                raise UserError(what, where=where, fix="give an input with text in it")
            total, size = total + found, size + bytes_of_input
        report(Event(f"read {source}", done=total, total=total, figures={"bytes": size}))

    return documents()


def read_file(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[Located]:
    """Reads the documents of one file with their places in it: a pure function of the file and `config`.

    Files may be read by different processes, each with a quarantine of its own. Handing the results to `drop_taken_ids`
    and the quarantines to `Quarantine.absorb`, both in the order of the files, gives what `read_inputs` gives.

    Raises:
      UserError: a package that the kind of file needs is missing, or too much of the file is bad.
    """
    for located in _READERS[file.kind](file, config, quarantine):
        quarantine.accept()
        yield located


def drop_taken_ids(
    files: Iterable[tuple[InputFile, Iterable[Located]]], taken: TextSet, quarantine: Quarantine
) -> Iterator[Document]:
    """Yields the documents of files in order, with ids unique among them and not in `taken`; see `with_own_ids`."""
    for file, located in files:
        for _, document in with_own_ids(file, located, taken, quarantine):
            yield document


def with_own_ids(
    file: InputFile, located: Iterable[Located], taken: TextSet, quarantine: Quarantine
) -> Iterator[Located]:
    """Yields the documents of one file with ids that are not in `taken`, and adds the ids to it.

    Shards often count from 0 each, so an id that an earlier file had becomes FILE/ID. A record whose id came before in
    the same file is left out.
    """
    own = TextSet() if len(taken) else None  # the ids of this file; needed only if earlier files may have had them
    for line, document in located:
        if taken.add(document.id):
            if own is not None:
                own.add(document.id)
        elif own is not None and own.add(document.id) and taken.add(name := f"{file.name}/{document.id}"):
            document = dataclasses.replace(document, id=name)
        else:
            quarantine.withdraw(file.path or file.input, line, f"the id {document.id[:80]!r} came before")
            continue
        yield line, document


def utf8_length(text: str) -> int:
    """Returns the number of bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _read_text(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[Located]:
    try:
        with open_stream(file.path) as stream:
            data = stream.read(config.max_record_bytes + 1)
        if len(data) > config.max_record_bytes:
            raise MalformedError(f"longer than {config.max_record_bytes:,} bytes")
        document = text_document(decoded(data), file.name, config)
    except (MalformedError, OSError) as error:
        quarantine.refuse(file.path, 0, str(error))
        return
    yield 0, document


def _read_lines(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[Located]:
    number = 0
    try:
        with open_stream(file.path) as stream:
            for number, line in enumerate(read_lines(stream, config.max_record_bytes), 1):
                try:
                    if line is None:
                        raise MalformedError(f"longer than {config.max_record_bytes:,} bytes")
                    if not line.isspace():
                        yield number, parse_document(line, f"{file.name}:{number}", config)
                except MalformedError as error:
                    quarantine.refuse(file.path, number, str(error))
    except OSError as error:
        quarantine.refuse(file.path, number + 1, f"the rest of the file cannot be read: {error}")


def _read_packages(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[Located]:
    del quarantine
    return _generated(harvest_packages(config.max_bytes), file, config)


def _read_world(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[Located]:
    del quarantine
    return _generated(compose_documents(config.world, file.path), file, config)


def _generated(documents: Iterable[Document], file: InputFile, config: ReadConfig) -> Iterator[Located]:
    if config.kind != "text":
        raise UserError(f"{file.input!r} holds texts, not {config.kind}", where=file.input, fix="set kind to text")
    for document in documents:
        yield 0, dataclasses.replace(document, source=config.source, stratum=config.source)


_READERS: dict[Kind, Callable[[InputFile, ReadConfig, Quarantine], Iterator[Located]]] = {
    "text": _read_text,
    "lines": _read_lines,
    "parquet": read_parquet,
    "array_record": read_array_record,
    "hf": read_hugging_face,
    "packages": _read_packages,
    "world": _read_world,
}
