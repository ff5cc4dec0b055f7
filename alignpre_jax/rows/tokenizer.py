"""Text to token ids and back: one `tokenizer.json` in the Hugging Face `tokenizers` format."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from alignpre_jax.foundation import PathLike, UserError, digest, write_bytes

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """A tokenizer with an end-of-text token.

    Text never becomes a special token: a document that contains the characters of
    "<|endoftext|>" gets ordinary tokens for them, so no text can fake a document boundary.

    Attributes:
      vocab_size: one more than the largest token id.
      eot_id: the token that precedes every document in a row.
      digest: 16 hex digits that name the tokenizer file's bytes.
    """

    def __init__(self, data: bytes, eot: str = END_OF_TEXT, where: str = "tokenizer"):
        try:
            self._inner = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises the bare class; also UnicodeDecodeError
            raise UserError(
                f"not a tokenizer file: {error}", where=where, fix="give a tokenizer.json of the `tokenizers` library"
            ) from None
        self._inner.no_padding()
        self._inner.no_truncation()
        self._inner.encode_special_tokens = True
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        if eot not in vocabulary:
            known = sorted(
                str(token.content) for token in self._inner.get_added_tokens_decoder().values() if token.special
            )
            raise UserError(
                f"the tokenizer has no token {eot!r} to put between documents",
                where=where,
                fix=f"name its end-of-text token; its special tokens: {', '.join(known[:20]) or 'none'}",
            )
        self.vocab_size = max(vocabulary.values()) + 1
        self.eot_id = vocabulary[eot]
        self.digest = digest(data)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, without any special token."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        return [item.ids for item in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=False)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, which need not be valid UTF-8 on their own.

        Byte-level tokenizers (GPT-2, NeoX, ours) and byte-fallback ones (Llama) are both
        understood; an id without a token gives b"".
        """
        added = self._inner.get_added_tokens_decoder().get(token_id)
        if added is not None:
            return str(added.content).encode()
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes([int(byte[1], 16)])
        if isinstance(self._inner.decoder, decoders.ByteLevel):
            return bytes(_byte_of_char()[char] for char in token)
        return token.replace("▁", " ").encode()


def train_bpe(texts: Iterable[str], vocab_size: int, path: PathLike) -> Tokenizer:
    """Trains a lossless byte-level BPE on `texts` and writes it to `path`.

    The same texts give the same file, whatever the number of threads. "<|endoftext|>" is
    token 0 and the 256 bytes follow, so `vocab_size` must be at least 257; fewer than
    `vocab_size` tokens come out when the texts have no more pairs to merge.

    Raises:
      UserError: `vocab_size` is too small.
    """
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
    return Tokenizer(data, where=str(path))


def load_tokenizer(path: PathLike, eot: str = END_OF_TEXT) -> Tokenizer:
    """Loads a `tokenizer.json`; `eot` names its end-of-text token.

    Raises:
      UserError: there is no such file, it is no tokenizer, or it has no token `eot`.
    """
    file = epath.Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.exists():
        raise UserError("no such tokenizer file", where=str(file), fix="give the path of a tokenizer.json")
    return Tokenizer(file.read_bytes(), eot, where=str(file))


@functools.cache
def _byte_of_char() -> dict[str, int]:
    """The inverse of GPT-2's byte-to-character table: printable bytes stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(other)}
