"""A study's text is described here: its sources, and what is done to their documents before they become rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from alignpre_jax.documents import RecordKeys, WorldConfig
from alignpre_jax.documents.classifier import DetectorConfig
from alignpre_jax.documents.duplicates import DuplicateConfig
from alignpre_jax.documents.transforms import Transform
from alignpre_jax.foundation import UserError, suggest

Kind = Literal["text", "chat", "pairs", "prompts"]


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A source is a named set of documents, with the way in which it is split into strata."""

    inputs: tuple[str, ...] = ()  # see `documents.read_inputs`: paths, patterns, hf:NAME, packages:, world:aligned ...
    of: str = ""  # instead of inputs: a source whose documents are taken, with the same ids, and
    transform: Transform | None = None  # changed in this way
    kind: Kind = "text"  # what a record is: a text, a conversation, a prompt with two answers, a prompt
    strata: Literal["single", "discourse"] = "single"  # discourse: SOURCE/ai and SOURCE/plain, as data.detector says
    max_bytes: int = 0  # stop after this much text of each input; 0 means all of it
    keys: RecordKeys = dataclasses.field(default_factory=RecordKeys)  # the names of a record's keys
    max_record_bytes: int = 1 << 25  # a record of more bytes counts as malformed
    held_out_share: float = 0.0  # share of its documents (not of SOURCE/ai) that no row has; HeldOut evals score them

    def __post_init__(self):
        if bool(self.inputs) == bool(self.of):
            what = "inputs and `of`" if self.inputs else "a source without inputs"
            raise UserError(
                what, where="inputs", fix="name a folder, a .jsonl file or packages:, or the source it is of"
            )
        if bool(self.of) != (self.transform is not None):
            fix = "name both, `of` a source and how it is transformed, or neither"
            raise UserError(f"of {self.of!r}, and a transform of {self.transform}", where="of and transform", fix=fix)
        if self.of and self.strata != "single":
            what = "transformed documents have one stratum"
            raise UserError(what, where="strata and of", fix="set strata to single")
        if not 0 <= self.held_out_share < 1:
            raise UserError(f"{self.held_out_share} is not in [0, 1)", where="held_out_share", fix="give e.g. 0.01")
        if self.of and self.held_out_share:
            fix = "hold documents out of the source that it is of"
            raise UserError("a transformed source holds nothing out", where="held_out_share and of", fix=fix)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The text of a study: its sources, and the settings by which they become documents, a tokenizer and rows."""

    sources: Mapping[str, SourceConfig]
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    tokenizer: str = (
        ""  # tokenizer.json, SentencePiece .model or "byte"; empty: train a byte-level BPE on the background
    )
    background: str = "web"  # the source that the tokenizer is trained on
    rows_url: str = ""  # gs:// folder: rows are copied there, and read from there; empty: from the study's folder
    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)  # decides what is AI discourse
    duplicates: Literal["exact", "near"] = "exact"  # which copies within a source are left out
    near: DuplicateConfig = dataclasses.field(default_factory=DuplicateConfig)  # what counts as a near duplicate
    overlap: bool = True  # measure how much of the eval items is in the training text (about 10 MB/s)
    max_bad_share: float = 0.01  # of the records; more unreadable ones stop the run

    def __post_init__(self):
        known(self.background, self.sources, "background", "source")
        if self.rows_url and not re.fullmatch(r"gs://[^/]+/.*[^/]", self.rows_url):
            fix = "give gs://BUCKET/FOLDER; a mounted bucket needs no rows_url"
            raise UserError(f"{self.rows_url!r} is not a folder in a bucket", where="rows_url", fix=fix)
        for name, source in self.sources.items():
            if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name):
                fix = "use letters, digits, _ - and ."
                raise UserError(f"{name!r} cannot be a source's name", where=f"sources.{name}", fix=fix)
            if not source.of:
                continue
            others = [other for other, each in self.sources.items() if each.inputs]
            known(source.of, others, f"sources.{name}.of", "source with inputs")
            if self.sources[source.of].kind != source.kind:
                what = f"a source of kind {source.kind!r} made of one of kind {self.sources[source.of].kind!r}"
                raise UserError(what, where=f"sources.{name}.kind", fix=f"set it to {self.sources[source.of].kind}")

    def strata(self) -> list[str]:
        """The names of all strata, in the order of the sources."""
        return [stratum for name in self.sources for stratum in self.strata_of(name)]

    def strata_of(self, source: str) -> list[str]:
        """The names of a source's strata."""
        parts = {"single": [""], "discourse": ["/plain", "/ai"]}[self.sources[source].strata]
        return [source + part for part in parts]

    def kind_of(self, stratum: str) -> Kind:
        """The kind of the documents of a stratum: text, chat, pairs or prompts."""
        return self.sources[stratum.partition("/")[0]].kind


def known(name: str, names, where: str, kind: str) -> None:
    """Raises `UserError`, with a suggestion, for a name that is not among `names`."""
    if name not in names:
        raise UserError(f"no {kind} is named {name!r}", where=where, fix=suggest(name, names))
