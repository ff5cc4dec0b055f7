import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from alignpre_jax.rows.packing import Packer

DOCUMENTS = st.lists(st.lists(st.integers(0, 999), max_size=40), max_size=30)


def pack(documents, length):
    packer = Packer(length, np.dtype("<u2"))
    rows = [row for number, tokens in enumerate(documents) for row in packer.add(number, tokens, number / 100)]
    return rows, packer.leftover


@given(DOCUMENTS, st.integers(2, 17))
def test_tokens_are_conserved_in_order(documents, length):
    rows, leftover = pack(documents, length)
    stream = [token for tokens in documents for token in tokens]
    assert leftover == len(stream) % length
    assert [token for tokens, _ in rows for token in tokens] == stream[: len(stream) - leftover]


@given(DOCUMENTS, st.integers(2, 17))
def test_spans_tile_each_row_and_every_token_traces_to_its_document(documents, length):
    rows, _ = pack(documents, length)
    position = [0] * len(documents)
    for tokens, spans in rows:
        starts = spans["start"].tolist()
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert starts[-1] < length
        for number, start, end in zip(spans["document"], starts, [*starts[1:], length], strict=True):
            begin = position[number]
            assert tokens[start:end].tolist() == documents[number][begin : begin + end - start]
            position[number] += end - start
        np.testing.assert_array_equal(spans["score"], (spans["document"] / 100).astype(np.float32))


def test_rows_are_fresh_arrays():
    rows, _ = pack([[1, 2, 3, 4]], 2)
    assert [row.tolist() for row, _ in rows] == [[1, 2], [3, 4]]
