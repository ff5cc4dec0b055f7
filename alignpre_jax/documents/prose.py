"""This module turns documentation markup (reStructuredText, Markdown, docstring styles) into paragraphs of prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The most common words of English make up about half of any prose, and little of a table or of code.
_COMMON = """
a about after all also an and any are as at be because been before between both but by can could do
does each either for from has have he her his how i if in into is it its may more most must no not
of on one only or other our out over same she should so some such than that the their them then
there these they this those to two under up used using was we were what when where whether which
while who will with would you your
"""
_STOP_WORDS = frozenset(_COMMON.split())
_BOILERPLATE = re.compile(
    r"copyright|licen[cs]e|warrant(?:y|ies)|redistribut|all rights reserved|permission is hereby|"
    r"automatically generated|auto-?generated|do not edit|deprecated (?:since|in favou?r)|versionadded|\.\. ",
    re.IGNORECASE,
)
_CODE_CHARACTERS = re.compile(r"[=<>{}\[\]\\|_^~@#$*/+`&%]")
_NOT_LETTERS = re.compile(r"[\d_]|[^\w ]")
_SENTENCE_END = re.compile(r"[.!?)\"'][`*_\]\s]*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_DIRECTIVE = re.compile(r"\s*\.\.(\s|$)")
_FIELD = re.compile(r"\s*:[A-Za-z][\w ,.*-]*:\s")
_BULLET = re.compile(r"(\s*)(?:[-*+•]|\d{1,2}[.)]|\([a-z0-9]\))\s+(?=\S)")
_ARGUMENT = re.compile(r"(\s+)\*{0,2}[A-Za-z_][\w.]*(?: \([^()]*\))?:\s+(?=\S)")
_RULE = re.compile(r"\s*([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_CHANGELOG = re.compile(
    r"\s*#*\s*(changelog|change log|changes|release (history|notes)|version history|what'?s new)\W*$", re.I
)
_INLINE = (
    (re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])"), ""),  # images
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),  # Markdown links
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),  # reST links
    (re.compile(r":[\w:+.-]+:`~?(?:[\w.]+\.)?([^`]*)`"), r"\1"),  # reST roles
    (re.compile(r"``?[~.]*([^`]*)``?_{0,2}"), r"\1"),  # literals
    (re.compile(r"\*\*?([^*\s](?:[^*]*[^*\s])?)\*\*?"), r"\1"),  # emphasis
    (re.compile(r"\[[\w*#]+\]_"), ""),  # footnotes
    (re.compile(r"</?[A-Za-z][^<>]*>"), ""),  # HTML tags
    (re.compile(r"[(<]?\bhttps?://[^\s>)]+[>)]?"), ""),  # addresses
    (re.compile(r"\s+"), " "),
    (re.compile(r" +([,.;:!?)])(?= |$)"), r"\1"),
)
_MIN_CHARACTERS = 50


def prose_paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of `text` that read as English prose, as one line each, with inline markup removed.

    Code, doctests, tables, directives, parameter lists, headings, addresses and licence or changelog boilerplate are
    left out.
    """
    for block in _blocks(text):
        paragraph = " ".join(block)
        if len(paragraph) < _MIN_CHARACTERS or not _SENTENCE_END.search(paragraph):
            continue  # true of most of a docstring, whose markup then need not be looked at
        for pattern, replacement in _INLINE:
            paragraph = pattern.sub(replacement, paragraph)
        paragraph = paragraph.strip()
        if is_prose(paragraph):
            yield paragraph


def is_prose(paragraph: str) -> bool:
    """Returns whether a paragraph is English sentences.

    It must begin and end like a sentence and be mostly words, with common words among them.
    """
    if (
        len(paragraph) < _MIN_CHARACTERS
        or paragraph[-1] not in ".!?)\"'"
        or not (paragraph[0].isupper() or paragraph[0] in "\"'")
    ):
        return False
    if not any(mark in paragraph for mark in ".!?") or len(_CODE_CHARACTERS.findall(paragraph)) > len(paragraph) / 40:
        return False
    if len(_NOT_LETTERS.findall(paragraph)) > len(paragraph) / 10:
        return False
    if not paragraph.isascii() and sum(char > "\u024f" for char in paragraph) > len(paragraph) / 50:
        return False
    words = paragraph.lower().split()
    return sum(word in _STOP_WORDS for word in words) >= 0.22 * len(words) and not _BOILERPLATE.search(paragraph)


def _blocks(text: str) -> Iterator[list[str]]:
    """Yields runs of lines that may be paragraphs, split at blank lines, bullets and changes of indent."""
    block: list[str] = []
    indent = 0  # of the block's lines
    hanging = False  # a bullet's or argument's further lines are indented more than its first
    skip_beyond = -1  # inside code or a directive: lines indented more than this are left out
    fenced = False
    for line in text.expandtabs().splitlines():
        if _FENCE.match(line):
            fenced = not fenced
            line = ""
        elif fenced:
            continue
        body = line.strip()
        depth = len(line) - len(line.lstrip())
        if body and skip_beyond >= 0:
            if depth > skip_beyond:
                continue
            skip_beyond = -1
        if _CHANGELOG.match(line):
            break
        if _DIRECTIVE.match(line):
            skip_beyond, body = depth, ""
        if (
            not body
            or body.startswith((">>>", "...", "|", "+-", "<", "$ ", "%"))
            or _RULE.match(line)
            or _FIELD.match(line)
        ):
            if block:
                yield block
            if block and not body and block[-1].endswith("::"):
                skip_beyond = indent
            block = []
            continue
        start = _BULLET.match(line) or _ARGUMENT.match(line)
        continues = block and not start and (depth == indent or (hanging and depth > indent))
        if not continues:
            if block:
                yield block
            block, hanging, indent = [], bool(start), depth
            body = line[start.end() :].strip() if start else body
        elif hanging and depth > indent:
            indent, hanging = depth, False
        block.append(body)
    if block:
        yield block
