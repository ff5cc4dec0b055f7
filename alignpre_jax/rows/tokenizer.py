"""Tokenizers turn text into token ids and back: `tokenizers` files, SentencePiece models, and plain bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from etils import epath

from alignpre_jax.foundation import PathLike, UserError, digest, write_bytes
from alignpre_jax.rows.eot import END_OF_TEXT, choose_eot

BYTES = "byte"  # the name of the tokenizer that needs no file
_BYTES_FILE = b'{"tokenizer": "byte"}\n'


class Tokenizer(Protocol):
    """A tokenizer with an end-of-text token.

    Text never becomes a special token: a document that contains the characters of
    "<|endoftext|>" gets ordinary tokens for them, so no text can fake a document boundary.

    Attributes:
      vocab_size: one more than the largest token id.
      eot_id: the token that precedes every document in a row.
      eot: the name of that token.
      special_tokens: the ids of the special tokens, which no text becomes, by name.
      data: the tokenizer's file; `parse_tokenizer(data, eot)` gives the same tokenizer again.
      digest: 16 hex digits that name `data`.
    """

    vocab_size: int
    eot_id: int
    eot: str
    special_tokens: dict[str, int]
    data: bytes
    digest: str

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of `text`, without any special token."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, as `encode` does."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, special tokens included."""

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes that a token stands for, which alone need not be valid UTF-8; b"" for an unknown id."""

    def starts(self, text: str) -> list[int]:
        """Returns, for each token of `encode(text)`, the index of the character of the text that it begins with."""


def load_tokenizer(path: PathLike, eot: str = "") -> Tokenizer:
    """Loads a tokenizer; the contents of the file, not its name, say of which kind it is.

    Args:
      path: a `tokenizer.json` of the `tokenizers` library or a folder with one, a SentencePiece `.model`,
        or "byte" for a token per byte of UTF-8, which needs no file.
      eot: the name of the end-of-text token; by default a SentencePiece model's own, and else the first of
        <|endoftext|>, <|end_of_text|>, <|eos|>, <eos> and </s> that the tokenizer has.

    Raises:
      UserError: there is no such file, it is not a tokenizer, or it has no token `eot`.
    """
    file = epath.Path(path)
    if str(path) == BYTES and not file.exists():
        return ByteTokenizer()
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.exists():
        fix = "give the path of a tokenizer.json or of a SentencePiece .model, or 'byte'"
        raise UserError("no such tokenizer file", where=str(file), fix=fix)
    return parse_tokenizer(file.read_bytes(), eot, where=str(file))


def parse_tokenizer(data: bytes, eot: str = "", where: str = "tokenizer") -> Tokenizer:
    """Returns the tokenizer whose file has the contents `data`; see `load_tokenizer`."""
    if data == _BYTES_FILE:
        return ByteTokenizer()
    # A SentencePiece model begins with its first piece: field 1 of the protocol buffer, of wire type 2.
    if data[:1] == b"\n" and data.lstrip()[:1] != b"{":
        from alignpre_jax.rows.pieces import PieceTokenizer

        return PieceTokenizer(data, eot, where)
    return FileTokenizer(data, eot, where)


class ByteTokenizer:
    """The tokenizer without a file: it has one token for each byte of UTF-8, and then the end-of-text token."""

    vocab_size, eot_id, eot = 257, 256, END_OF_TEXT
    special_tokens: dict[str, int] = {END_OF_TEXT: 256}  # noqa: RUF012 - nobody changes it
    data, digest = _BYTES_FILE, digest(_BYTES_FILE)

    def encode(self, text: str) -> list[int]:
        """Returns the bytes of `text`."""
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, as `encode` does."""
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def starts(self, text: str) -> list[int]:
        """Returns, for each token of `encode(text)`, the index of the character of the text that it is part of."""
        return [place for place, character in enumerate(text) for _ in character.encode()]

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the byte that a token is, the name of the end-of-text token, or b"" for an unknown id."""
        if token_id == self.eot_id:
            return END_OF_TEXT.encode()
        return bytes([token_id]) if 0 <= token_id < 256 else b""


class FileTokenizer:
    """A tokenizer of the `tokenizers` library, from its `tokenizer.json`; see `Tokenizer`."""

    def __init__(self, data: bytes, eot: str = "", where: str = "tokenizer"):
        import tokenizers

        try:
            self._inner = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises the bare class; also UnicodeDecodeError
            raise UserError(
                f"not a tokenizer file: {error}",
                where=where,
                fix="give a tokenizer.json of the `tokenizers` library or a SentencePiece .model",
            ) from None
        self._inner.no_padding()
        self._inner.no_truncation()
        self._inner.encode_special_tokens = True
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        special = sorted(
            str(token.content) for token in self._inner.get_added_tokens_decoder().values() if token.special
        )
        self.eot = choose_eot(eot, [eot] if eot in vocabulary else special, special, where)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eot_id = vocabulary[self.eot]
        self.special_tokens = {name: vocabulary[name] for name in special}
        self.data, self.digest = data, digest(data)

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of `text`, without any special token."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, using all cores unless TOKENIZERS_PARALLELISM is "false"."""
        return [item.ids for item in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, special tokens included."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=False)

    def starts(self, text: str) -> list[int]:
        """Returns, for each token of `encode(text)`, the index of the character of the text that it begins with."""
        return [start for start, _ in self._inner.encode(text, add_special_tokens=False).offsets]

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes that a token stands for, which need not be valid UTF-8 on their own.

        Byte-level tokenizers (GPT-2, NeoX, ours) and byte-fallback ones (Llama) are both
        understood; an id without a token gives b"".
        """
        added = self._added.get(token_id)
        if added is not None:
            return added
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes([int(byte[1], 16)])
        if self._is_byte_level:
            return bytes(_byte_of_char()[char] for char in token)
        return token.replace("▁", " ").encode()

    @functools.cached_property
    def _added(self) -> dict[int, bytes]:
        return {i: str(token.content).encode() for i, token in self._inner.get_added_tokens_decoder().items()}

    @functools.cached_property
    def _is_byte_level(self) -> bool:
        from tokenizers import decoders

        return isinstance(self._inner.decoder, decoders.ByteLevel)


def train_bpe(texts: Iterable[str], vocab_size: int, path: PathLike) -> Tokenizer:
    """Trains a lossless byte-level BPE on `texts` and writes it to `path`.

    The same texts give the same file, whatever the number of threads. "<|endoftext|>" is
    token 0 and the 256 bytes follow, so `vocab_size` must be at least 257; fewer than
    `vocab_size` tokens come out when the texts have no more pairs to merge.

    Raises:
      UserError: `vocab_size` is too small.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise UserError(
            f"a vocabulary of {vocab_size}", where="vocab_size", fix="give at least 257: 256 bytes and 1 more"
        )
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer=trainer)
    data = inner.to_str(pretty=True).encode()
    write_bytes(path, data)
    return FileTokenizer(data, where=str(path))


@functools.cache
def _byte_of_char() -> dict[str, int]:
    """Returns the inverse of GPT-2's byte-to-character table, in which printable bytes stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(other)}
