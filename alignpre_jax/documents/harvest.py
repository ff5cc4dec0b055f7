"""The documentation inside installed Python packages is real English that every machine has."""

from __future__ import annotations

import ast
import collections
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.prose import prose_paragraphs

_SKIPPED_FOLDERS = re.compile(
    r"tests?|testing|_?vendor|_vendored|third_party|external|site-packages|dist-packages|__pycache__|licenses|lib2to3|\..*"
    r"|alignpre_jax.*"
)
_SKIPPED_FILES = re.compile(
    r"(licen[cs]e|copying|notice|authors|contributors|change|history|news|release|top_level|entry_points|sources"
    r"|requirements|record|installed-files|alignpre_jax).*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'''""".*?"""|\'{3}.*?\'{3}''', re.DOTALL)
_MIN_QUOTED_SHARE = 0.2  # of a file's code; parsing takes most of the time, and with fewer it hardly pays
_MAX_FILE_BYTES = 1_000_000
_MIN_DOCUMENT_CHARACTERS = 100
_PACKAGE_SHARE = 8  # a package is left when it has given an eighth of the text that is asked for


def harvest_packages(max_bytes: int = 8_000_000) -> Iterator[Document]:
    """Yields prose from the docstrings, text files and descriptions of the packages in this environment.

    The standard library and what is installed in site-packages are read, never imported or run; the text of this
    package is left out. Order and content depend on the installed files only. A paragraph that came before is left out,
    wherever it was.

    Args:
      max_bytes: stop after this much text (UTF-8), and leave a package once it has given an eighth of it, so that the
        text has many authors; 0 takes everything.

    Yields:
      Documents named FILE or FILE#QUALNAME, with the file relative to its root folder; source and stratum are
      "packages".
    """
    total = 0
    seen: set[bytes] = set()
    for package, files in _packages():
        of_package = 0
        for document_id, text in (pair for name, path in files for pair in _texts(name, path)):
            text = "\n\n".join(paragraph for paragraph in prose_paragraphs(text) if _is_new(paragraph, seen))
            if len(text) < _MIN_DOCUMENT_CHARACTERS:
                continue
            yield Document(document_id, text, source="packages", stratum="packages", labels={"package": package})
            size = len(text.encode())
            total, of_package = total + size, of_package + size
            if max_bytes and total >= max_bytes:
                return
            if max_bytes and of_package >= max_bytes / _PACKAGE_SHARE:
                break


def _packages() -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """Yields each package with its files and their names, packages and files in sorted order."""
    paths = sysconfig.get_paths()
    library = Path(paths["stdlib"])
    yield "python", [(f"python/{name}", path) for name, path in _files(library, library)]
    for root in sorted({Path(paths["purelib"]), Path(paths["platlib"])}):
        if not root.is_dir():
            continue
        for entry in sorted(root.iterdir()):
            if entry.is_dir() and not _SKIPPED_FOLDERS.fullmatch(entry.name):
                yield entry.name, list(_files(entry, root))
            elif entry.is_file() and _is_read(entry.name):
                yield entry.name, [(entry.name, entry)]


def _files(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _SKIPPED_FOLDERS.fullmatch(name))
        for name in sorted(names):
            if _is_read(name):
                path = Path(parent, name)
                yield path.relative_to(root).as_posix(), path


def _is_read(name: str) -> bool:
    return (name == "METADATA" or name.endswith((".py", ".rst", ".md", ".txt"))) and not _SKIPPED_FILES.fullmatch(name)


def _texts(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yields (document id, text) for each text in a file; nothing for a file that is too large or not UTF-8."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if name.endswith(".py"):
        for qualname, docstring in _docstrings(text):
            yield f"{name}#{qualname}" if qualname else name, docstring
    elif path.name == "METADATA":
        yield name, text.partition("\n\n")[2]  # the headers end at the first blank line
    else:
        yield name, text


def _docstrings(code: str) -> Iterator[tuple[str, str]]:
    """Yields (qualified name, docstring) of a module, its classes and functions, in the order of the source."""
    quoted = sum(len(text) for text in _QUOTED.findall(code) if len(text) > _MIN_DOCUMENT_CHARACTERS)
    if quoted < _MIN_QUOTED_SHARE * len(code):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's remarks on other people's escapes
            module = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    counts: collections.Counter[str] = collections.Counter()
    waiting: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [("", module)]
    while waiting:
        qualname, node = waiting.pop()
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            counts[qualname] += 1  # a property's getter and setter share a name
            number = f"~{counts[qualname]}" if counts[qualname] > 1 else ""
            yield qualname + number, inspect.cleandoc(first.value.value)
        inner = [n for n in node.body if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        waiting += [(f"{qualname}.{n.name}" if qualname else n.name, n) for n in reversed(inner)]


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(paragraph.casefold().encode(), digest_size=8).digest()
    if key in seen:
        return False
    seen.add(key)
    return True
