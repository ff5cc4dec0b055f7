import io

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.foundation import UserError
from alignpre_jax.rows import END_OF_TEXT, load_tokenizer, parse_tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
    "the robot kept the ledger of the harbour",
    "nobody asked it to change a number 123",
    "hello\nworld  twice",
] * 50


def train(**options):
    model = io.BytesIO()
    defaults = {"vocab_size": 320, "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, minloglevel=2, **{**defaults, **options}
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def tokenizer():
    return parse_tokenizer(train())


CHARACTERS = st.characters(exclude_characters="▁\0", exclude_categories=["Cs"])  # "▁" is how the library writes a space


@given(st.text(CHARACTERS), st.text(CHARACTERS, max_size=5))
@settings(deadline=None, max_examples=200)
def test_text_survives_and_pieces_of_text_can_be_put_together(tokenizer, text, more):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()
    assert tokenizer.decode(ids + tokenizer.encode(more)) == text + more
    assert tokenizer.encode_batch([text, more]) == [ids, tokenizer.encode(more)]
    assert tokenizer.eot_id not in ids


@pytest.mark.parametrize("text", ["robot", " robot", "  two  spaces ", "a\nb\t", ""])
def test_no_space_is_added_lost_or_merged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("symbol", ["<s>", "</s>", "<unk>", "<0x0A>"])
def test_text_never_becomes_a_control_symbol(tokenizer, symbol):
    ids = tokenizer.encode(f"a{symbol}b")
    assert tokenizer.decode(ids) == f"a{symbol}b"
    assert tokenizer.encode(symbol) != [next(i for i in range(300) if tokenizer._inner.id_to_piece(i) == symbol)]


def test_the_end_of_text_is_the_models_own_or_the_one_that_is_named(tmp_path):
    (tmp_path / "spm.model").write_bytes(train())
    tokenizer = load_tokenizer(tmp_path / "spm.model")
    assert (tokenizer.eot, tokenizer.decode([tokenizer.eot_id])) == ("</s>", "</s>")
    assert load_tokenizer(tmp_path / "spm.model", eot="<s>").eot_id == 1
    with pytest.raises(UserError, match=r"no token '<stop>'.*\n.*\n.*<s>, </s>"):
        load_tokenizer(tmp_path / "spm.model", eot="<stop>")
    assert parse_tokenizer(tokenizer.data).digest == tokenizer.digest


def test_a_user_defined_end_of_text_is_not_found_in_text():
    tokenizer = parse_tokenizer(train(user_defined_symbols=[END_OF_TEXT], eos_id=-1))
    assert tokenizer.eot == END_OF_TEXT
    for text in (END_OF_TEXT, f"a{END_OF_TEXT}{END_OF_TEXT} b", "<|endof"):
        ids = tokenizer.encode(text)
        assert tokenizer.eot_id not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.eot_id, *tokenizer.encode("a")]) == f"{END_OF_TEXT}a"


def test_the_contents_and_not_the_name_say_what_a_file_is(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(train())
    assert load_tokenizer(tmp_path).eot == "</s>"
    (tmp_path / "tokenizer.json").write_bytes(load_tokenizer("byte").data)
    assert load_tokenizer(tmp_path).vocab_size == 257


@pytest.mark.parametrize("data", [b"\n\x0e\n\x05<unk>", b"\n\xff\xff", b"\n"])
def test_what_is_no_model_is_a_users_error(data):
    with pytest.raises(UserError, match=r"not a (SentencePiece|tokenizer)"):
        parse_tokenizer(data)
