"""Scored spans of texts: every token takes the span that holds its first byte."""

import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Document, ScoredSpan
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import build_rows, load_tokenizer, open_rows, train_bpe
from alignpre_jax.rows.spans import token_scores, token_starts

BYTES = load_tokenizer("byte")
ALPHABET = "ab .é日🦜\n"


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    return train_bpe(["ab ab. é日 ab🦜 日ab a.b é é"] * 20, 280, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


def spans_of(draw, text):
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    return [(start, end, float(number + 1), "") for number, (start, end) in enumerate(pairs)]


@given(st.text(ALPHABET, max_size=30), st.data(), st.booleans())
def test_every_token_is_in_the_span_of_its_first_byte_or_in_none(bpe, text, data, is_bytes):
    tokenizer = BYTES if is_bytes else bpe
    spans = spans_of(data.draw, text)
    ids = tokenizer.encode(text)
    scores, inside = token_scores(tokenizer, {"id": "d", "text": text, "spans": spans}, ids)
    place, wanted = 0, []
    for token in ids:
        character = len(text.encode()[:place].decode(errors="ignore"))
        holding = [score for start, end, score, _ in spans if start <= character < end]
        assert len(holding) <= 1
        wanted += holding or [0.0]
        place += len(tokenizer.token_bytes(token))
    assert scores.tolist() == wanted
    assert inside == np.count_nonzero(wanted)


def test_a_tokenizer_that_changes_its_text_says_where_it_was():
    sentencepiece = pytest.importorskip("sentencepiece")
    from alignpre_jax.rows import parse_tokenizer

    model = io.BytesIO()
    texts = ["the harbour was quiet and ærø fine", "the clerk went home"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=60, minloglevel=2, hard_vocab_limit=False
    )
    tokenizer = parse_tokenizer(model.getvalue())
    text = "ærø ﬁne"  # the ligature becomes two letters
    ids = tokenizer.encode(text)
    starts = token_starts(tokenizer, text, ids)
    assert len(starts) == len(ids)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == "ærø fine"
    assert starts.tolist() == sorted(starts.tolist())
    assert starts[-1] == len(text) - 1


@pytest.mark.parametrize("spans", [[(0, 3, 1, ""), (2, 4, 1, "")], [(2, 9, 1, "")], [(3, 2, 1, "")], [(-1, 2, 1, "")]])
def test_spans_that_overlap_or_leave_the_text_are_a_users_error(spans):
    with pytest.raises(UserError, match=r"spans of d") as caught:
        token_scores(BYTES, {"id": "d", "text": "abcde", "spans": spans}, BYTES.encode("abcde"))
    assert "overlaps" in str(caught.value)


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_scores_come_along_and_segments_stay_those_of_documents(tmp_path_factory, packing, data):
    texts = data.draw(st.lists(st.text(ALPHABET, min_size=1, max_size=20), min_size=4, max_size=12))
    documents, plain = [], []
    for number, text in enumerate(texts):
        spans = spans_of(data.draw, text) if number % 3 else []
        documents.append(Document(f"d{number}", text, "web", "web", spans=tuple(ScoredSpan(*span) for span in spans)))
        plain.append(Document(f"d{number}", text, "web", "web"))
    roots = [tmp_path_factory.mktemp("rows") for _ in range(2)]
    options = {"packing": packing, "workers": 1, "shard_rows": 3}
    many = [
        build_rows(d, BYTES, 8, r, block_bytes=10**6, **options)["web"]
        for d, r in zip((documents, plain), roots, strict=True)
    ]
    rows, bare = (store.read(np.arange(len(store))) for store in many)
    np.testing.assert_array_equal(rows.tokens, bare.tokens)
    np.testing.assert_array_equal(rows.segments, bare.segments)
    assert bare.scores is None
    wanted = {}
    for document in documents:
        facts = {
            "id": document.id,
            "text": document.text,
            "spans": [(s.start, s.end, s.score, "") for s in document.spans],
        }
        wanted[document.id] = [0.0, *token_scores(BYTES, facts, BYTES.encode(document.text))[0].tolist()]
    if rows.scores is None:
        assert not any(map(any, wanted.values()))
        return
    for index in range(len(many[0])):
        for span in many[0].spans(index):
            part = wanted[span.document_id][span.offset : span.offset + span.end - span.start]
            assert rows.scores[index, span.start : span.end].tolist() == part
    assert not rows.scores[rows.segments == 0].any()


def test_blocks_without_spans_share_a_store_with_others(tmp_path):
    spans = (ScoredSpan(0, 4, 0.5),)
    documents = [Document(f"d{i}", f"text {i}. " * 5, "web", "web", spans=spans if i == 7 else ()) for i in range(20)]
    store = build_rows(documents, BYTES, 32, tmp_path, block_bytes=300, workers=1, shard_rows=4)["web"]
    rows = open_rows(store.path).read(np.arange(len(store)))
    assert rows.scores.dtype == np.float32
    assert (rows.scores > 0).sum() == 4
    assert BYTES.decode(rows.tokens[rows.scores > 0]) == "text"
