"""The audit of a corpus reads its sources, has them scanned and counts what they say about AI."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from alignpre_jax.documents.audit.evidence import EvidenceWriter, read_evidence
from alignpre_jax.documents.audit.records import Audit, BadRecord
from alignpre_jax.documents.audit.scan import Finding, Task, key_of, scan_documents
from alignpre_jax.documents.audit.tally import Census, Discourse, DistinctSample, source_audit
from alignpre_jax.documents.discourse import LANGUAGES, Rule, term_lists
from alignpre_jax.documents.document import BodyKind
from alignpre_jax.documents.hashset import TextSet
from alignpre_jax.documents.quarantine import Quarantine
from alignpre_jax.documents.readers import (
    InputFile,
    ReadConfig,
    RecordKeys,
    list_files,
    read_file,
    utf8_length,
    with_own_ids,
)
from alignpre_jax.documents.world import WorldConfig
from alignpre_jax.foundation import Event, PathLike, Report, UserError, cores, digest, silent

_ALL_LANGUAGES = 2_000  # documents of a source that all have their language identified; after them one in 32 has
_EVERY = 32
_SMALL = 32 << 20  # bytes; one process has scanned fewer than these before others would have started
_BAD = 20  # how many bad records an audit names
_TOTAL = "all sources"


def audit(
    inputs: Sequence[str],
    *,
    sample: int = 0,
    rule: Rule | None = None,
    evidence: PathLike = "",
    workers: int = 0,
    max_bad_share: float = 1.0,
    keys: RecordKeys | None = None,
    kind: BodyKind = "text",
    world: WorldConfig | None = None,
    command: str = "",
    report: Report = silent,
) -> Audit:
    """Finds out what a corpus says about AI.

    Documents stream through once; memory holds the counters, the examples, and 36 bytes per document for its id. The
    result is the same for any number of workers.

    Args:
      inputs: each is PATH or NAME=PATH, of whatever `read_inputs` reads. Inputs with one name are one source, and a
        source without a name is called after the last part of its path.
      sample: how many documents of each source to scan, chosen at random by a hash of their ids; 0 scans all.
      rule: says which documents are AI discourse; the paper's rule by default.
      evidence: a .jsonl, .jsonl.gz or .jsonl.zst file to write the findings to, for `audit_evidence`.
      workers: processes to scan with; 0 for one per core.
      max_bad_share: the audit stops when more than this share of a source's records cannot be read.
      keys: the names that the parts of a record have.
      kind: what the records are. Of chats, pairs and prompts everything that is said in them is scanned.
      world: what "world:" composes.
      command: the command that was run, for the record.
      report: is told the number of documents and bytes now and then.

    Raises:
      UserError: an input does not exist or has no documents.
    """
    rule = rule or Rule()
    sources = _sources(inputs)
    files = {name: list_files(specs, "alignpre audit", report) for name, specs in sources.items()}
    bytes_known = sum(file.bytes for of_source in files.values() for file in of_source)
    workers = workers or (1 if bytes_known < _SMALL else cores())
    config = ReadConfig("", keys or RecordKeys(), world=world or WorldConfig(), kind=kind)
    reading = _Reading(files, sample, max_bad_share, config, report)
    counted = {name: Discourse(rule) for name in sources}
    distinct = {name: DistinctSample() for name in sources}
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(EvidenceWriter(evidence)) if evidence else None
        findings = scan_documents(reading.tasks(), workers, rule)
        for finding in reading.drawn(findings) if sample else findings:
            reading.censuses[finding.source].add(finding)
            distinct[finding.source].add(finding.digest)
            if finding.hits is not None:
                counted[finding.source].add(finding)
                if writer is not None:
                    writer.add(finding)
        every = DistinctSample()
        for name, census in reading.censuses.items():
            census.duplicates = distinct[name].share
            every.merge(distinct[name])
        about = {"duplicates": every.share, "inputs": sources, "sample": sample, "versions": _versions()}
        if writer is not None:
            writer.close_with({"sources": {n: dataclasses.asdict(c) for n, c in reading.censuses.items()}, **about})
    return _audit(reading.censuses, counted, rule, command, about)


def audit_evidence(path: PathLike, *, rule: Rule | None = None, command: str = "", report: Report = silent) -> Audit:
    """Makes the audit again from an evidence file, by any rule that asks for an instant term or an entity.

    Another rule could flag documents that do not mention AI, and the evidence does not hold those.

    Raises:
      UserError: the file is not there, is not evidence, or is not complete.
    """
    rule = rule or Rule()
    counted: dict[str, Discourse] = {}
    number, last = 0, {}
    for row in read_evidence(path):
        if isinstance(row, dict):
            last = row
        else:
            counted.setdefault(row.source, Discourse(rule)).add(row)
            number += 1
            if number % 1000 == 0:
                report(Event("read evidence", done=number))
    censuses = {name: Census.from_json(census) for name, census in last["sources"].items()}
    return _audit(censuses, {name: counted.get(name, Discourse(rule)) for name in censuses}, rule, command, last)


def _audit(
    censuses: Mapping[str, Census], counted: Mapping[str, Discourse], rule: Rule, command: str, about: Mapping[str, Any]
) -> Audit:
    strata = {name: (census, counted[name]) for name, census in censuses.items()}
    return Audit(
        sources={name: source_audit(name, [each], rule, each[0].duplicates, _BAD) for name, each in strata.items()},
        total=source_audit(_TOTAL, list(strata.values()), rule, about["duplicates"], _BAD),
        inputs={name: tuple(specs) for name, specs in about["inputs"].items()},
        sample=about["sample"],
        rule=dataclasses.asdict(rule),
        command=command,
        versions=about["versions"],
    )


def _sources(inputs: Sequence[str]) -> dict[str, list[str]]:
    """Groups the inputs, each PATH or NAME=PATH, by the name of their source."""
    if not inputs:
        raise UserError(
            "nothing to audit", where="alignpre audit", fix="name a folder or file: alignpre audit PATH ..."
        )
    named: list[tuple[str, str]] = []
    for given in inputs:
        name, equals, spec = given.partition("=")
        if not equals or not name or "/" in name or epath.Path(given).exists():
            name, spec = "", given
        named.append((name, spec))
    short = [name or _short(spec) for name, spec in named]
    sources: dict[str, list[str]] = {}
    for (name, spec), label in zip(named, short, strict=True):
        alike = {other for (_, other), its in zip(named, short, strict=True) if its == label}
        sources.setdefault(label if name or len(alike) == 1 else spec, []).append(spec)
    return sources


def _short(spec: str) -> str:
    """Names a source that was given no name: the last part of its path, without its endings."""
    if ":" in spec and "://" not in spec:
        return spec.strip(":")
    last = os.path.basename(os.path.abspath(spec) if "://" not in spec else spec.rstrip("/"))
    return last.split(".")[0] or last


class _Reading:
    """Reads sources into tasks and keeps count of them; draws a sample where one is asked for."""

    def __init__(
        self,
        files: Mapping[str, Sequence[InputFile]],
        sample: int,
        max_bad_share: float,
        config: ReadConfig,
        report: Report,
    ):
        self._files, self._sample, self._report = files, sample, report
        self._max_bad_share, self._config = max_bad_share, config
        self.censuses = {name: Census() for name in files}
        self._least: dict[str, list[int]] = {name: [] for name in files}  # the drawn keys, negated, as a heap

    def tasks(self) -> Iterator[Task]:
        """Yields the documents to scan.

        A sample is known only when all is read, so documents that later ones push out of it are scanned too.
        """
        for name, files in self._files.items():
            quarantine = Quarantine(self._max_bad_share, where="--max_bad_share")
            census, taken = self.censuses[name], TextSet()
            config = dataclasses.replace(self._config, source=name)
            for file in files:
                for line, document in with_own_ids(file, read_file(file, config, quarantine), taken, quarantine):
                    census.read_documents += 1
                    census.read_bytes += utf8_length(document.text)
                    key = key_of(name, document.id)
                    if census.read_documents % 1000 == 0:
                        self._say(name, finished=False)
                    if not self._sample or self._draw(name, key):
                        place = f"{file.path or file.input}:{line}" if line else file.path or file.input
                        yield Task(name, document.id, place, document.text, key, self._weight(census, key))
            quarantine.check()
            census.records, census.bad_records = quarantine.records, quarantine.bad
            census.bad = [BadRecord(case.place, case.reason) for case in quarantine.cases[:_BAD]]
            if not census.read_documents:
                reason = f"; the first record left out: {census.bad[0].reason}" if census.bad else ""
                raise UserError(
                    f"no document in source {name!r}{reason}", where="alignpre audit", fix="give one with text"
                )
            self._say(name, finished=True)

    def drawn(self, findings: Iterator[Finding]) -> Iterator[Finding]:
        """Yields those findings that are in the sample when everything is read, source by source."""
        kept: dict[str, list[Finding]] = {name: [] for name in self._files}
        for finding in findings:
            of_source = kept[finding.source]
            of_source.append(finding)
            if len(of_source) > 2 * self._sample + 1000:
                of_source[:] = [each for each in of_source if each.key <= -self._least[finding.source][0]]
        for name, of_source in kept.items():
            yield from (each for each in of_source if each.key <= -self._least[name][0])

    def _draw(self, name: str, key: int) -> bool:
        least = self._least[name]
        if len(least) < self._sample:
            heapq.heappush(least, -key)
            return True
        return -heapq.heappushpop(least, -key) != key

    def _weight(self, census: Census, key: int) -> int:
        if (self._sample or census.read_documents) <= _ALL_LANGUAGES:
            return 1
        return 0 if key % _EVERY else _EVERY

    def _say(self, name: str, finished: bool) -> None:
        census = self.censuses[name]
        total = census.read_documents if finished else 0
        self._report(Event(f"audit {name}", census.read_documents, total, {"bytes": census.read_bytes}))


def _versions() -> dict[str, str]:
    lists = {language: term_lists(language) for language in LANGUAGES}
    versions = {"python": platform.python_version(), "term_lists": digest(lists)}
    for name in ("alignpre_jax", "ahocorasick_rs", "py3langid"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is not installed
            versions[name] = importlib.metadata.version(name)
    return versions
