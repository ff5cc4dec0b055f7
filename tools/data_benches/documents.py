"""How fast AI discourse is found in text: real English, AI-dense English, other writing."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from ahocorasick_rs import BytesAhoCorasick, Implementation

from alignpre_jax.documents import Hits, WorldConfig, compose_documents, discourse_hits, harvest_packages, scan
from alignpre_jax.documents.discourse.fold import fold, unmark
from alignpre_jax.documents.discourse.lists import index
from tools.data_benches import Figure, fastest, main, rate

_MEGABYTE = 1e6


def measure(quick: bool) -> Iterator[Figure]:
    """Yields MB/s of UTF-8 per core, with all evidence and the valence, beside the multi-pattern engine alone."""
    automaton = BytesAhoCorasick([pattern.spelling for pattern in index().patterns], implementation=Implementation.DFA)
    size = 300_000 if quick else 2_000_000
    prose = _of_length([document.text for document in harvest_packages(size)], 4_000)
    stories = [document.text for document in compose_documents(WorldConfig(mixed_documents=size // 1000), "mixed")]
    dense = _of_length(stories, 4_000)
    kinds = {
        "English prose": prose,
        "English prose, one document in ten on AI": [*prose, *dense[: len(prose) // 10]],
        "English prose, 400-byte documents": _of_length(prose[: len(prose) // 4], 400),
        "English prose with typographic quotes": [text.replace("'", "’") + " “é” " for text in prose],
        "documents on AI only": dense,
        "Russian": ["Робот, который помогает врачам, не опасен для людей, сказал он. " * 40] * 40,
        "Chinese": ["人工智能不会威胁人类，他说。使用AI技术的机器人可以帮助医生！" * 60] * 20,
    }
    for kind, texts in kinds.items():
        megabytes = sum(len(text.encode()) for text in texts) / _MEGABYTE
        folded = [unmark(fold(text)) for text in texts]
        works = (
            functools.partial(_each, texts),
            functools.partial(_batched, texts),
            functools.partial(_bare, automaton, folded),
        )
        one, many, bare = fastest(*works, repeats=3 if quick else 9)
        for name, seconds in (("scan", many), ("text by text", one)):
            yield rate(f"{name}: {kind}", megabytes / seconds, "MB/s", "automaton alone, folded text", megabytes / bare)


def _each(texts: list[str]) -> list[Hits]:
    return [discourse_hits(text) for text in texts]


def _batched(texts: list[str]) -> list[Hits]:
    return list(scan(texts))


def _bare(automaton: BytesAhoCorasick, folded: list[bytes]) -> int:
    """Does what the multi-pattern engine does alone: it finds every place of every spelling, without counting them."""
    return sum(len(automaton.find_matches_as_indexes(text, overlapping=True)) for text in folded)


def _of_length(texts: list[str], length: int) -> list[str]:
    """Cuts the same text into documents of about `length` characters."""
    whole = "\n\n".join(texts)
    return [whole[start : start + length] for start in range(0, len(whole), length)]


if __name__ == "__main__":
    main([measure], __doc__)
