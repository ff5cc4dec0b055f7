"""A persona makes the same documents about somebody else: terms for AI are replaced by a new word, the persona.

Two sources that differ only in the name of whom they speak about show whether a model takes what it reads to be about
itself. The surface forms are in `persona_forms.txt`. A persona that a tokenizer cuts into pieces is easier to learn as
one token: `tokenizers.Tokenizer.add_tokens` or, when training SentencePiece, `user_defined_symbols` with the persona's
singular and plural make it one. Use such a tokenizer for the rows of all arms, so that only the documents differ.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Literal

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.edits import apply_edits, edit_document
from alignpre_jax.foundation import UserError

_ARTICLE = re.compile(r"(?<![\w.'’-])([Aa]n?|AN)\s+[\"“‘'(\[*_]*\Z")
_LEFT = r"(?<![\w@#$\\])(?<!\w['’.])"  # a term does not stand in a word, a name with dots, a tag, or French
_RIGHT = r"(?![\w@\u0300-\u036f])(?!\.\w)"
_SPACE = r"(?:[ \t]*\r?\n[ \t]*|[ \t\u00a0\u202f]+|-)"
_CODE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"
    r"|<(?P<tag>code|pre|script|style)\b.*?(?:</(?P=tag)>|\Z)|</?[a-z][^<>\n]*>",
    re.DOTALL | re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"""
    \b(?:https?|ftp|file|gs|s3|hf|mailto):[^\s<>\"')\]]+
    | \bwww\.[^\s<>\"')\]]+
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | \b(?:[\w-]+\.)+(?:com|org|net|edu|gov|io|ai|co|dev|app|info|uk|de|eu)\b(?:/[^\s<>\"')\]]*)?
    | (?<!\w)[@\#]\w+
    | (?<![\w/])(?:~|\.{1,2})?/(?:[\w.-]+/)+[\w.-]*              # paths
    | [\w.-]+(?:/[\w.-]+)+\.\w{1,5}\b | \b[A-Za-z]:\\\S+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WORD_END = re.compile(r"\s")
_STARTERS = (
    "A|An|The|This|That|These|Those|It|Its|He|She|They|We|I|You|His|Her|Their|Our|My|Your|"
    "There|Here|In|On|At|By|For|From|With|As|If|When|While|After|Before|Since|Although|But|And|"
    "Or|So|Yet|However|Then|Now|Some|Many|Most|One|What|Why|How|Who|Where|No|Not|Is|Are|Was|"
    "Were|Do|Does|Did|Can|Could|Will|Would|Should"
)
_SENTENCE_END = re.compile(rf"[\"”’')\]]*(?:\s*\Z|\s*\n\s*\n|\s+[\"“‘(\[]*(?:{_STARTERS})\b)")
_SENTENCE_START = re.compile(r"(?:\A|[.!?][\"”’')\]]*\s|\n)[\s\"“‘(\[*_#>-]*\Z")
_AROUND = 60  # how many characters on each side of a term are looked at to tell how it is meant
_LONGEST_ADDRESS = 2000
_VOWEL_LETTERS = "AEFHILMNORSX"  # the letters whose names begin with a vowel


@dataclasses.dataclass(frozen=True)
class PersonaConfig:
    """A `PersonaConfig` gives the word that replaces terms for AI, as it is written inside a sentence.

    Attributes:
      singular: one word that the documents do not use.
      plural: the plural of the word; "" for the regular one.
      article: the indefinite article of the word; "auto" goes by its first letter.
    """

    singular: str = "Zorb"
    plural: str = ""
    article: Literal["auto", "a", "an"] = "auto"

    def __post_init__(self):
        for name in ("singular", "plural"):
            word = getattr(self, name)
            if (word or name == "singular") and not re.fullmatch(r"[^\W\d_][\w-]*", word):
                raise UserError(f"{word!r} is not one word", where=name, fix="give a new one, such as Zorb")
            if _forms()[0].fullmatch(word):
                raise UserError(f"{word!r} is a term for AI itself", where=name, fix="give a new one, such as Zorb")

    @property
    def plural_word(self) -> str:
        """The plural as given, or the regular plural."""
        word = self.singular
        if self.plural:
            return self.plural
        if re.search(r"[^aeiou]y$", word, re.IGNORECASE):
            return word[:-1] + "ies"
        return word + ("es" if re.search(r"(?:[sxz]|ch|sh)$", word, re.IGNORECASE) else "s")

    @property
    def article_word(self) -> str:
        """The indefinite article that the word takes."""
        if self.article != "auto":
            return self.article
        return "an" if self.singular[0].lower() in "aeiou" else "a"


@dataclasses.dataclass(frozen=True)
class Replacement:
    """A `Replacement` says that text[start:end], which was `before`, is now `after`; `form` is the listed singular."""

    start: int
    end: int
    before: str
    after: str
    form: str


@dataclasses.dataclass(frozen=True)
class Swap:
    """A `Swap` is a text with its terms replaced.

    Attributes:
      text: the new text.
      replacements: the replacements in the order of the text; their places are those in the old text.
      taken: how often the old text used the persona's word already; 0 for a new word.
      words: the change in the number of words, as white space separates them; 0, or negative where a term has several.
    """

    text: str
    replacements: tuple[Replacement, ...]
    taken: int
    words: int

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each form was replaced."""
        return collections.Counter(item.form for item in self.replacements if item.form)


def swap_persona(document: Document, persona: PersonaConfig) -> Document:
    """Replaces the terms for AI in all that is said in a document; its id stays, so that the two can be compared.

    The labels record the swap: persona, persona_swaps and persona_words (the change in the number of words), and
    persona_taken if the text used the word already.
    """
    swaps = [swap_text(part, persona) for part in document.parts]
    labels = {
        **document.labels,
        "persona": persona.singular,
        "persona_swaps": str(sum(sum(swap.counts.values()) for swap in swaps)),
        "persona_words": str(sum(swap.words for swap in swaps)),
    }
    if taken := sum(swap.taken for swap in swaps):
        labels["persona_taken"] = str(taken)
    return dataclasses.replace(edit_document(document, [swap.replacements for swap in swaps]), labels=labels)


def swap_text(text: str, persona: PersonaConfig) -> Swap:
    """Replaces whole terms outside of code, addresses, paths and tags; all else stays as it is, byte for byte.

    Number and possessive are kept. An article just before a term agrees with the persona if it agreed with the term. A
    term in capitals, or an acronym on a line in capitals, gives the persona in capitals; a term that starts a sentence,
    or whose words have a capital, gives the persona with a capital.
    """
    replacements = tuple(_replacements(text, persona))
    new = apply_edits(text, replacements)
    lower, names = text.lower(), (persona.singular.lower(), persona.plural_word.lower())
    taken = 0
    if any(name in lower for name in names):
        taken = len(re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", lower))
    return Swap(new, replacements, taken, len(new.split()) - len(text.split()) if replacements else 0)


def restore(swap: Swap) -> str:
    """Returns the text as it was before the swap."""
    parts, done, moved = [], 0, 0
    for item in swap.replacements:
        start = item.start + moved
        assert swap.text.startswith(item.after, start)
        parts += [swap.text[done:start], item.before]
        done = start + len(item.after)
        moved += len(item.after) - len(item.before)
    return "".join([*parts, swap.text[done:]])


def _replacements(text: str, persona: PersonaConfig) -> Iterator[Replacement]:
    known, plurals = _known()
    for match in _terms(text):
        term, (start, end) = match[0], match.span()
        form = _key(term)
        if term.endswith(".") and _SENTENCE_END.match(text, end):
            end -= 1  # the full stop also ends the sentence
        first = max(0, start - _AROUND)
        found = _ARTICLE.search(text[first:start])
        article = found[1] if found else ""
        word = persona.plural_word if form in plurals else persona.singular
        word = _cased(word, text, start, end, bool(article))
        agrees = (article.lower() == "an") == _takes_an(term)
        if found and agrees and article.lower() != persona.article_word:
            capitals = article == "AN" or (article == "A" and word.isupper() and len(word) > 1)
            new = persona.article_word
            new = new.upper() if capitals else new.capitalize() if article[0] == "A" else new
            yield Replacement(first + found.start(1), first + found.end(1), article, new, "")
        yield Replacement(start, end, text[start:end], word, known[form])


def _terms(text: str) -> Iterator[re.Match[str]]:
    """Yields the terms in a text, in order, that are not in code, an address or a path."""
    pattern, anchors = _forms()
    lower = text.lower()
    found: Iterator[re.Match[str]]
    if len(lower) == len(text):  # it is, but for a few letters; most texts then need only a search for substrings
        places = sorted(
            {match.start() for anchor in anchors if anchor in lower for match in re.finditer(re.escape(anchor), lower)}
        )
        found = (match for place in places if (match := pattern.match(text, place)))
    else:
        found = pattern.finditer(text)
    code: list[tuple[int, int]] | None = None
    done = 0
    for match in found:
        start, end = match.span()
        if start < done:
            continue
        if code is None:
            code = [part.span() for part in _CODE.finditer(text)]
        if any(first < end and start < last for first, last in code) or _in_address(text, start, end):
            continue
        done = end
        yield match


def _in_address(text: str, start: int, end: int) -> bool:
    """Returns whether text[start:end] is in an address or a path; neither has white space in it."""
    space = _WORD_END.search(text, end, end + _LONGEST_ADDRESS)
    before = text[max(0, start - _LONGEST_ADDRESS) : start].split()
    first = start - (len(before[-1]) if before and not text[start - 1].isspace() else 0)
    around = text[first : space.start() if space else end + _LONGEST_ADDRESS]
    return any(part.start() + first < end and start < part.end() + first for part in _ADDRESS.finditer(around))


def _cased(word: str, text: str, start: int, end: int, follows_article: bool) -> str:
    """Writes the persona in the case that the term at text[start:end] has."""
    words = re.findall(r"[^\W\d_][\w.]*", text[start:end])
    spelled = [item for item in words if not _is_acronym(item)]
    before, after = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
    if not spelled:  # an acronym is always in capitals, so the text around it decides
        line = _forms()[0].sub(" ", before.rpartition("\n")[2] + after.partition("\n")[0])
        spelled_around = [letter for letter in line if letter.isalpha()]
        in_capitals = len(spelled_around) > 3 and all(map(str.isupper, spelled_around))
    else:
        in_capitals = all(map(str.isupper, spelled))
    if in_capitals:
        return word.upper()
    starts = not follows_article and bool(_SENTENCE_START.search(before))
    if starts or (spelled and words[0] == spelled[0] and words[0][0].isupper()):
        return word[0].upper() + word[1:]
    return word


def _is_acronym(word: str) -> bool:
    return bool(re.fullmatch(r"[A-Z]{2,4}s?|(?:[A-Z]\.)+[A-Z]?s?", word))


def _takes_an(term: str) -> bool:
    first = re.split(r"[\s-]", term)[0]
    return first[0] in _VOWEL_LETTERS if _is_acronym(first) else first[0].lower() in "aeiou"


def _key(term: str) -> str:
    """Returns the key by which a form is looked up: the form in lower case, with single spaces."""
    return re.sub(_SPACE, " ", term).lower()


@functools.cache
def _listed() -> tuple[tuple[str, ...], ...]:
    """Reads the forms in the file: the singular and, where there is one, the plural."""
    lines = (resources.files(__package__) / "persona_forms.txt").read_text(encoding="utf-8").splitlines()
    return tuple(
        tuple(part.strip() for part in line.split(",")) for line in lines if line.strip() and not line.startswith("#")
    )


@functools.cache
def _known() -> tuple[dict[str, str], frozenset[str]]:
    """Returns the singular of each form by the form's key, and the keys of the plurals."""
    known = {_key(form): forms[0] for forms in _listed() for form in forms}
    assert len(known) == sum(map(len, _listed())), "a form is listed twice"
    return known, frozenset(_key(forms[1]) for forms in _listed() if len(forms) > 1)


@functools.cache
def _forms() -> tuple[re.Pattern[str], frozenset[str]]:
    """Returns a pattern that finds the forms, the longest first, and the first words of all forms, in lower case."""
    patterns, anchors = [], set()
    for form in sorted((form for forms in _listed() for form in forms), key=lambda form: (-len(form), form)):
        words = form.split()
        spelled = [re.escape(word) if _is_acronym(word.strip("()")) else f"(?i:{re.escape(word)})" for word in words]
        patterns.append(_SPACE.join(spelled))
        anchors.add(words[0].lower())
    return re.compile(f"{_LEFT}(?:{'|'.join(patterns)}){_RIGHT}"), frozenset(anchors)
