import hypothesis.strategies as st
import pytest
import tokenizers
from hypothesis import given, settings

from alignpre_jax.foundation import UserError
from alignpre_jax.rows import END_OF_TEXT, load_tokenizer, parse_tokenizer, train_bpe

TEXTS = [
    f"The {word} of the {word} was not the {other}." for word in ("cat", "robot") for other in ("end", "start")
] * 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(TEXTS, 280, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


@given(st.text())
@settings(deadline=None, max_examples=50)
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()
    assert tokenizer.encode_batch([text, text]) == [ids, ids]
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_no_text_can_fake_a_document_boundary(tokenizer):
    ids = tokenizer.encode(f"before{END_OF_TEXT}after")
    assert tokenizer.eot_id not in ids
    assert tokenizer.decode(ids) == f"before{END_OF_TEXT}after"
    assert tokenizer.decode([tokenizer.eot_id]) == END_OF_TEXT


def test_training_is_deterministic_and_a_file_loads_as_itself(tokenizer, tmp_path):
    again = train_bpe(iter(TEXTS), 280, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path)
    assert again.digest == loaded.digest == tokenizer.digest
    assert loaded.vocab_size == tokenizer.vocab_size == 280
    assert loaded.encode("The robot") == tokenizer.encode("The robot")


def test_training_learns_merges(tokenizer):
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2


def test_another_end_of_text_token_must_be_named(tmp_path):
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({"<stop>": 0, "a": 1, "<0x0A>": 2, "▁": 3}, []))
    inner.add_special_tokens(["<stop>"])
    inner.save(str(tmp_path / "other.json"))
    with pytest.raises(UserError, match="<stop>"):
        load_tokenizer(tmp_path / "other.json")
    tokenizer = load_tokenizer(tmp_path / "other.json", eot="<stop>")
    assert tokenizer.eot_id == 0
    assert [tokenizer.token_bytes(i) for i in range(5)] == [b"<stop>", b"a", b"\n", b" ", b""]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b"not json"])
def test_what_is_no_tokenizer_is_a_users_error(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(UserError, match="not a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_missing_file_and_a_tiny_vocabulary_are_users_errors(tmp_path):
    with pytest.raises(UserError, match="no such"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(UserError, match="256"):
        train_bpe(TEXTS, 100, tmp_path / "tokenizer.json")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_are_tokens_too(text):
    tokenizer = load_tokenizer("byte")
    ids = tokenizer.encode(text)
    assert bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "a"]) == [ids, [97]]
    assert tokenizer.decode([tokenizer.eot_id, *ids]) == END_OF_TEXT + text
    assert [tokenizer.token_bytes(i) for i in (97, 256, 257, -1)] == [b"a", END_OF_TEXT.encode(), b"", b""]
    assert parse_tokenizer(tokenizer.data).digest == tokenizer.digest


@pytest.mark.parametrize("name", ["</s>", "<eos>", "<|end_of_text|>"])
def test_a_well_known_end_of_text_token_is_found(tmp_path, name):
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, name: 1, "<s>": 2}, []))
    inner.add_special_tokens([name, "<s>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).eot_id == 1
    assert load_tokenizer(tmp_path, eot="<s>").eot_id == 2
