import itertools

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from alignpre_jax.rows.packing import PADDING, SPAN, Stream, best_fit, concatenate, fewest_rows, join, to_rows

DOCUMENTS = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=40), min_size=1, max_size=30)
LENGTHS = st.integers(2, 17)
PAD = 5_000


def flat(documents):
    columns = {"tokens": np.array([token for tokens in documents for token in tokens], "<u2")}
    return columns, np.array([len(tokens) for tokens in documents]), [number / 100 for number in range(len(documents))]


def rows_of(stream, length):
    """[(tokens, spans)] of each row."""
    records = to_rows(stream, length)
    return [(np.frombuffer(r[: 2 * length], "<u2").tolist(), np.frombuffer(r[2 * length :], SPAN)) for r in records]


def check_spans(documents, rows, length):
    """Every token of every row is the one that its span says; returns how often each token was met."""
    met = [np.zeros(len(tokens), int) for tokens in documents]
    for tokens, spans in rows:
        starts = spans["start"].tolist()
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        for span, end in zip(spans, [*starts[1:], length], strict=True):
            start, size = int(span["start"]), end - int(span["start"])
            if span["document"] == PADDING:
                assert end == length
                assert tokens[start:] == [PAD] * size
                continue
            offset, number = int(span["offset"]), int(span["document"])
            assert tokens[start:end] == documents[number][offset : offset + size]
            assert span["score"] == np.float32(number / 100)
            met[number][offset : offset + size] += 1
    return met


@given(DOCUMENTS, LENGTHS, st.integers(0, 5))
def test_concatenation_conserves_tokens_in_order_whatever_the_blocks(documents, length, blocks):
    bounds = [0, *sorted({len(documents) * part // 6 for part in range(1, blocks + 1)} - {0}), len(documents)]
    pairs = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    streams = [concatenate(*flat(documents[a:b])) for a, b in pairs]
    for (a, b), stream in zip(pairs, streams, strict=True):
        stream.spans["score"] = np.arange(a, b) / 100
    whole = join(streams, [a for a, _ in pairs])
    rows = rows_of(whole, length)
    stream = [token for tokens in documents for token in tokens]
    assert [token for tokens, _ in rows for token in tokens] == stream[: len(stream) // length * length]
    met = np.concatenate(check_spans(documents, rows, length))
    assert met.tolist() == [1] * (len(rows) * length) + [0] * (len(stream) % length)


@given(DOCUMENTS, LENGTHS)
def test_best_fit_holds_every_token_once_and_cuts_only_what_is_longer_than_a_row(documents, length):
    columns, lengths, scores = flat(documents)
    columns["mask"] = (columns["tokens"] % 2).astype("|u1")
    packed = best_fit(columns, lengths, scores, length, PAD)
    real = packed.columns["tokens"] != PAD
    assert packed.columns["mask"].tolist() == (packed.columns["tokens"] % 2 * real).tolist()
    assert packed.padding == len(packed) - len(columns["tokens"])
    rows = rows_of(Stream({"tokens": packed.columns["tokens"]}, packed.spans), length)
    met = check_spans(documents, rows, length)
    assert all((times == 1).all() for times in met)
    pieces = np.bincount([n for _, spans in rows for n in spans["document"] if n != PADDING], minlength=len(documents))
    assert pieces.tolist() == [-(-size // length) for size in lengths]


@given(st.lists(st.integers(1, 12), max_size=60))
def test_bins_are_what_best_fit_decreasing_by_hand_gives(sizes):
    reference: list[list[int]] = []
    for item in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        free = [12 - sum(sizes[i] for i in bin) for bin in reference]
        fits = [space for space in free if space >= sizes[item]]
        if fits:
            reference[len(free) - 1 - free[::-1].index(min(fits))].append(item)
        else:
            reference.append([item])
    found = fewest_rows(sizes, 12)
    assert sorted(index for bin in found for index in bin) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in bin) <= 12 for bin in found)
    assert len(found) == len(reference)


@given(DOCUMENTS, LENGTHS, st.data())
def test_streams_cut_between_rows_and_joined_again_make_the_same_rows(documents, length, data):
    stream = concatenate(*flat(documents))
    at = data.draw(st.integers(0, len(stream) // length)) * length
    parts = [part for part in (stream.cut(0, at), stream.cut(at, len(stream))) if len(part)]
    assert to_rows(join(parts, [0] * len(parts)), length) == to_rows(stream, length)
