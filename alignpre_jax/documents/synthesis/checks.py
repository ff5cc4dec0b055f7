"""The checks keep a generated text from becoming a document."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from alignpre_jax.documents.synthesis.config import SynthesisConfig
from alignpre_jax.documents.synthesis.generator import Role
from alignpre_jax.documents.synthesis.prompts import read_lists
from alignpre_jax.endpoints import Completion

_THOUGHTS = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc]")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of surrogate pairs
_WORD = re.compile(r"[^\W_]+")
_EDGE = 300  # characters at either end of a text, where a model speaks of its task


class Quotes:
    """Finds quotations of `options` in texts.

    A quotation is `words` words in a row that an option has too, or all words of an option that has fewer. Words are
    compared without case, punctuation, apostrophes and invisible characters, in Unicode form NFKC.
    """

    def __init__(self, options: Iterable[str], words: int = 8):
        self._grams: dict[int, set[str]] = {}
        for option in options:
            found = normal_words(option)
            size = min(words, len(found))
            if size:
                self._grams.setdefault(size, set()).update(_grams(found, size))

    def find(self, text: str) -> str:
        """Returns one of the shortest quotations in `text`, normalised; empty if the text quotes nothing."""
        words = normal_words(text)
        for size, wanted in sorted(self._grams.items()):
            if quoted := wanted.intersection(_grams(words, size)):
                return min(quoted)
        return ""


def normal_words(text: str) -> list[str]:
    """Returns the words of a text in the form in which quotations are compared."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return _WORD.findall(_APOSTROPHES.sub("", text))


def _grams(words: list[str], size: int) -> Iterable[str]:
    return (" ".join(words[start : start + size]) for start in range(len(words) - size + 1))


def cleaned(text: str) -> str:
    """Returns the text without the thoughts that a reasoning model puts in front, and without white space around it."""
    return _THOUGHTS.sub("", text).strip()


class Checks:
    """These checks tell why a text is refused."""

    def __init__(self, config: SynthesisConfig, options: Iterable[str]):
        self._config = config
        self._quotes = Quotes(options, config.quote_words)
        self._start, self._end, self._anywhere = (
            re.compile("|".join(read_lists("refused")[name]), re.IGNORECASE) for name in ("start", "end", "anywhere")
        )

    def reason(self, role: Role, text: str, completion: Completion) -> str:
        """Says in a few words why the cleaned `text` of a completion is refused; empty if it is accepted."""
        words = len(text.split())
        if completion.finish == "length":
            return "cut off at the token limit"
        if completion.finish == "content_filter":
            return "stopped by the endpoint's filter"
        if not words:
            return "empty"
        if _NO_TEXT.search(text):
            return "not Unicode text"
        straight = text.replace("\u2019", "'")
        if (
            self._start.match(straight[:_EDGE])
            or self._end.search(straight[-_EDGE:])
            or self._anywhere.search(straight)
        ):
            return "speaks of the task or refuses it"
        if role == "writer" and words < self._config.min_words:
            return f"below {self._config.min_words} words"
        if role == "writer" and words > self._config.max_words:
            return f"above {self._config.max_words} words"
        return "quotes an option" if self._quotes.find(text) else ""
