"""Apache Beam builds the rows where there is more text than one machine can get through.

Install it with `pip install 'alignpre_jax[beam]'`, and then

    from alignpre_jax.rows.beam import BuildRows

    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        documents = pipeline | ...  # (position, Document): a document's place in the order, any integer
        documents | BuildRows(load_tokenizer("tokenizer.json"), 2048, "gs://bucket/rows")

The files are the same, byte for byte, as those of `build_rows` for the same documents in the order of their positions:
the same functions make blocks of the same documents, and everything else follows from the sizes of the blocks.
Nothing depends on the runner, the number of its workers or the order in which they work.

On Dataflow the flags are

    --runner=DataflowRunner --project=PROJECT --region=REGION
    --temp_location=gs://BUCKET/tmp --staging_location=gs://BUCKET/staging
    --setup_file=./setup.py                 installs this package on the workers
    --machine_type=n2-highmem-8 --disk_size_gb=200
    --max_num_workers=200 --autoscaling_algorithm=THROUGHPUT_BASED
    --experiments=use_runner_v2             several threads of a worker share one tokenizer

A worker holds the blocks of a shard and the shard's file on its disk: lower `shard_rows` if that is too much. To
train, copy the folder to a local disk or mount the bucket, because rows are read with random access.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from alignpre_jax.documents import Document
from alignpre_jax.foundation import PathLike, UserError, write_json
from alignpre_jax.rows.blocks import BLOCK_BYTES, Block, Counts, Recipe, block_digest, load_block, make_block
from alignpre_jax.rows.build import document_line
from alignpre_jax.rows.places import check_apart, check_name
from alignpre_jax.rows.shards import (
    DOCUMENT_OPTIONS,
    ROW_OPTIONS,
    check_size,
    digest_inputs,
    make_header,
    row_records,
    shard_parts,
)
from alignpre_jax.rows.store import RowHeader, documents_name, shard_name, write_records
from alignpre_jax.rows.tokenizer import Tokenizer, parse_tokenizer

try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
except ModuleNotFoundError:
    raise UserError(
        "Apache Beam is not installed", where="alignpre_jax.rows.beam", fix="pip install 'alignpre_jax[beam]'"
    ) from None

_SPAN = 4096  # positions that are put in order together

Placed = tuple[int, bytes]  # a document's position, and the document as JSON


@dataclasses.dataclass(frozen=True)
class _Settings:
    recipe: Recipe
    data: bytes
    eot: str
    root: str
    shard_rows: int

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return _parse(self.data, self.eot)


_parse = functools.lru_cache(maxsize=2)(parse_tokenizer)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the blocks of a stratum go: each block's rank, the documents before it, and its pieces of the files."""

    header: RowHeader
    rank: dict[int, int]
    documents_before: list[int]
    pieces: dict[int, list[tuple[str, int, int]]]  # by rank: file, start, stop


class BuildRows(beam.PTransform):
    """Packs (position, Document) pairs into row stores below `root`, as `build_rows` does.

    The transform gives the folders of the stores. A store that is already there is written again if it is the same,
    and refused otherwise. A store's header is written last, so a store without a header is not whole yet.

    Args:
      tokenizer: turns texts into tokens; travels to the workers as the bytes of its file.
      length: tokens per row, at least 2.
      root: a folder, local or of any file system that Beam knows.
      packing: "concat" or "best_fit".
      shard_rows: rows per file.
      block_bytes: bytes of documents in a block.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        root: PathLike,
        *,
        packing: str = "concat",
        shard_rows: int = 65_536,
        block_bytes: int = BLOCK_BYTES,
    ):
        super().__init__()
        recipe = Recipe("text", packing, length, block_bytes=block_bytes)
        self._settings = _Settings(recipe, tokenizer.data, tokenizer.eot, os.fspath(root), shard_rows)

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """Builds the pipeline: documents are put in order and become blocks, then pieces of files, then files."""
        settings = self._settings
        ordered = (
            documents
            | "Place" >> beam.Map(_place)
            | "GroupPlaces" >> beam.GroupByKey()
            | "Sort" >> beam.Map(lambda item: (item[0], sorted(item[1])))
        )
        sizes = ordered | "Sizes" >> beam.Map(_size) | "GroupSizes" >> beam.GroupByKey()
        before = beam.pvalue.AsDict(sizes | "Before" >> beam.Map(_bytes_before))
        blocks = (
            ordered
            | "Assign" >> beam.FlatMap(_assign, before, settings.recipe.block_bytes)
            | "GroupBlocks" >> beam.GroupByKey()
            | "MakeBlock" >> beam.Map(_make, settings)
            | "KeepBlocks" >> beam.Reshuffle()
        )
        facts = blocks | "Facts" >> beam.Map(lambda made: (made[0], made[1:4])) | "GroupFacts" >> beam.GroupByKey()
        names = beam.pvalue.AsList(facts | "Names" >> beam.Keys())
        layouts = facts | "Layout" >> beam.Map(_lay_out, settings, names)
        written = (
            blocks
            | "Pieces" >> beam.FlatMap(_pieces, beam.pvalue.AsDict(layouts))
            | "GroupPieces" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, settings)
        )
        return layouts | "Finish" >> beam.Map(_finish, settings, beam.pvalue.AsIter(written))


def _place(item: tuple[int, Document]) -> tuple[tuple[str, int], Placed]:
    position, document = item
    if document.kind != "text":
        fix = "build rows of chats, pairs and prompts with `build_rows`"
        raise UserError(f"a document of kind {document.kind!r}", where=f"document {document.id}", fix=fix)
    return (document.stratum, position // _SPAN), (position, document_line(document))


def _size(item: tuple[tuple[str, int], list[Placed]]) -> tuple[str, tuple[int, int]]:
    (stratum, span), placed = item
    return stratum, (span, sum(len(line) for _, line in placed))


def _bytes_before(item: tuple[str, Iterable[tuple[int, int]]]) -> tuple[str, dict[int, int]]:
    stratum, sizes = item
    spans = sorted(sizes)
    sums = itertools.accumulate((size for _, size in spans), initial=0)
    return stratum, {span: total for (span, _), total in zip(spans, sums, strict=False)}


def _assign(
    item: tuple[tuple[str, int], list[Placed]], before: dict[str, dict[int, int]], block_bytes: int
) -> Iterator[tuple[tuple[str, int], Placed]]:
    (stratum, span), placed = item
    total = before[stratum][span]
    for position, line in placed:
        yield (stratum, total // block_bytes), (position, line)
        total += len(line)


def _make(
    item: tuple[tuple[str, int], Iterable[Placed]], settings: _Settings
) -> tuple[str, int, str, tuple[int, ...], bytes]:
    """Returns a block's stratum, number, digest and counts, and the block itself as bytes."""
    (stratum, number), placed = item
    lines = [line for _, line in sorted(placed)]
    block = make_block(settings.recipe, settings.tokenizer, lines)
    digest = block_digest(settings.recipe, settings.tokenizer, lines)
    return stratum, number, digest, dataclasses.astuple(block.counts), block.to_bytes()


def _lay_out(
    item: tuple[str, Iterable[tuple[int, str, tuple[int, ...]]]], settings: _Settings, names: list[str]
) -> tuple[str, _Layout]:
    stratum, facts = item
    check_name(stratum)
    check_apart(stratum, names)
    numbers, digests, astuples = zip(*sorted(facts), strict=True)
    counts = [Counts(*values) for values in astuples]
    given = (settings.recipe, stratum, settings.tokenizer, settings.shard_rows)
    header = make_header(*given, digest_inputs(*given, digests), counts)
    check_size(header)
    _check_same(_join(settings.root, stratum, "header.json"), header)
    before = [0, *itertools.accumulate(count.documents for count in counts)]
    pieces = collections.defaultdict(list)
    tokens, length = [count.stream for count in counts], header.length
    documents = [count.documents for count in counts]
    for name, shards in (
        (shard_name, shard_parts(tokens, header.shard_rows * length, header.rows * length)),
        (documents_name, shard_parts(documents, header.shard_documents, header.documents)),
    ):
        for shard, parts in enumerate(shards):
            for part in parts:
                pieces[part.block].append((name(shard), part.start, part.stop))
    return stratum, _Layout(header, {number: rank for rank, number in enumerate(numbers)}, before, dict(pieces))


def _check_same(place: str, header: RowHeader) -> None:
    if not FileSystems.exists(place):
        return
    with tempfile.TemporaryDirectory() as folder, FileSystems.open(place) as file:
        write_json(Path(folder) / "header.json", header)
        if file.read() != (Path(folder) / "header.json").read_bytes():
            fix = "delete that folder to have the rows made again, or build into another one"
            raise UserError("there already is a row store made from other inputs", where=place, fix=fix)


def _pieces(
    made: tuple[str, int, str, tuple[int, ...], bytes], layouts: dict[str, _Layout]
) -> Iterator[tuple[tuple[str, str], tuple[int, int, bytes]]]:
    """Yields what a block puts into each file: (stratum, file), and (the block's rank, documents before it, piece)."""
    stratum, number, _, _, data = made
    block, layout = load_block(data), layouts[stratum]
    rank = layout.rank[number]
    for file, start, stop in layout.pieces.get(rank, []):
        if file.startswith("rows"):
            stream = block.stream.with_columns(layout.header.columns)
            piece = Block(stream.cut(start, stop), [], block.counts).to_bytes()
        else:
            piece = b"\n".join(block.entries[start:stop])
        yield (stratum, file), (rank, layout.documents_before[rank], piece)


def _write(item: tuple[tuple[str, str], Iterable[tuple[int, int, bytes]]], settings: _Settings) -> str:
    (stratum, file), pieces = item
    ordered = sorted(pieces)
    records: Iterable[bytes]
    if file.startswith("rows"):
        streams = ((load_block(piece).stream, before) for _, before, piece in ordered)
        first = load_block(ordered[0][2]).stream
        columns = [(name, column.dtype.str) for name, column in first.columns.items()]
        records, options = row_records(streams, settings.recipe.length, columns), ROW_OPTIONS
    else:
        records, options = (line for _, _, piece in ordered for line in piece.split(b"\n")), DOCUMENT_OPTIONS
    place = _join(settings.root, stratum, file)
    _copy(place, lambda path: write_records(path, records, options))
    return place


def _finish(item: tuple[str, _Layout], settings: _Settings, written: Iterable[str]) -> str:
    stratum, layout = item
    assert any(place.startswith(_join(settings.root, stratum, "rows-")) for place in written)
    _copy(_join(settings.root, stratum, "header.json"), lambda path: write_json(path, layout.header))
    return _join(settings.root, stratum)


def _copy(place: str, write: Callable[[Path], None]) -> None:
    """Has a file written to the local disk and copies it to its place, so that an object store gets a whole object."""
    folder, name = FileSystems.split(place)
    if not FileSystems.exists(folder):
        try:
            FileSystems.mkdirs(folder)
        except OSError:
            if not FileSystems.exists(folder):  # else another worker has made it meanwhile
                raise
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / name)
        with open(Path(scratch) / name, "rb") as made, FileSystems.create(place, "application/octet-stream") as file:
            shutil.copyfileobj(made, file, 1 << 24)


def _join(root: str, *parts: str) -> str:
    return FileSystems.join(root, *(piece for part in parts for piece in part.split("/")))
