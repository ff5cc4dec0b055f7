import sys
import textwrap

import pytest

from alignpre_jax.documents import harvest, harvest_packages
from alignpre_jax.documents.prose import is_prose, prose_paragraphs

SENTENCE = "This function returns the sum of all the values that were given to it before the last call."


def paragraphs(text):
    return list(prose_paragraphs(textwrap.dedent(text)))


@pytest.mark.parametrize(
    "markup",
    [
        "```python\nprint('This is the code that we do not want to have in the prose at all.')\n```",
        ">>> f('This is the code that we do not want to have in the prose at all.')\nThis",
        ".. code-block:: python\n\n    This is the code that we do not want to have in the prose at all.\n",
        "Thus::\n\n    This is the code that we do not want to have in it.\n\n    Nor is all of this what we want.",
        "| This is a table that | we do not want to have in the prose. |\n|---|---|",
        "+-----+\n| This is a table that we do not want to have in the prose. |\n+-----+",
        "https://example.org/this/is/an/address/that/we/do/not/want/to/have.html",
        "[![Badge](https://example.org/badge.svg)](https://example.org)",
        "x : array_like of shape (n, m), optional\ny : int\n",
        ":param x: the value that is to be added to all of the others in the list.\n",
        "Heading of the section\n======================",
        "Copyright (c) 2001 by the authors. All rights reserved, and this is the licence of the program.",
        "Permission is hereby granted to anyone who has the file to do with it what they want to do.",
        "def f(x): return x + 1 if x > 0 else {'a': [1, 2, 3]}['a'][x] # and so on.",
        "result = f(a, b, c)\nother = g(result)[0]",
        "- item one\n- item two\n- item three",
        "numpy scipy pandas matplotlib torch sklearn jax flax optax orbax grain tensorstore etils absl.",
    ],
)
def test_what_is_not_prose_is_left_out(markup):
    assert paragraphs(f"{SENTENCE}\n\n{markup}\n\nAnother. {SENTENCE}") == [SENTENCE, f"Another. {SENTENCE}"]


def test_inline_markup_is_taken_off():
    text = """
        The :class:`~package.module.Thing` is what ``make`` returns, *not* a **copy** of it;
        see `the manual <https://example.org>`_ or [the guide](https://example.org) on how to use it [1]_.
    """
    assert paragraphs(text) == [
        "The Thing is what make returns, not a copy of it; see the manual or the guide on how to use it."
    ]


def test_descriptions_of_parameters_are_kept_without_the_parameters():
    text = """
        Args:
          first: The value that is added to all of the others, which may be
            as large as you want it to be.
          second: bool.

        Parameters
        ----------
        x : array_like
            The input that is to be sorted along the last of its axes by this
            function.
        """
    assert paragraphs(text) == [
        "The value that is added to all of the others, which may be as large as you want it to be.",
        "The input that is to be sorted along the last of its axes by this function.",
    ]


def test_a_changelog_ends_the_prose():
    assert paragraphs(f"{SENTENCE}\n\n## Changelog\n\nThe second. {SENTENCE}") == [SENTENCE]


@pytest.mark.parametrize(
    "text", ["", ".", "Short.", "x" * 100 + ".", "日本語の文章です。" * 10, SENTENCE.lower(), SENTENCE[:-1]]
)
def test_is_prose_rejects(text):
    assert not is_prose(text or " ")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A made-up environment; a package that would be imported or run shows up as a failure."""
    library, site = tmp_path / "lib", tmp_path / "lib/site-packages"
    files = {
        "lib/zeta.py": f'"""{SENTENCE}"""\n',
        "lib/test/zeta_test.py": f'"""Test. {SENTENCE}"""\n',
        "lib/site-packages/beta/__init__.py": """
            raise SystemExit("imported")
            """,
        "lib/site-packages/beta/core.py": f'''
            """Module. {SENTENCE}"""
            raise SystemExit("run")
            class A:
                """Class. {SENTENCE}"""
                def f(self):
                    """Getter. {SENTENCE}"""
                def f(self, value):
                    """Setter. {SENTENCE}"""
                    def inner():
                        """Inner. {SENTENCE}"""
            async def g():
                """{SENTENCE}"""
            ''',
        "lib/site-packages/beta/broken.py": f'"""Broken. {SENTENCE}"""\ndef (:\n',
        "lib/site-packages/beta/guide.rst": f"Guide. {SENTENCE}",
        "lib/site-packages/beta/LICENSE.txt": f"Licence text. {SENTENCE}",
        "lib/site-packages/beta/CHANGES.md": f"Changes. {SENTENCE}",
        "lib/site-packages/beta-1.0.dist-info/METADATA": f"Name: beta\nSummary: {SENTENCE}\n\nDescription. {SENTENCE}",
        "lib/site-packages/alignpre_jax/x.py": f'"""Ours. {SENTENCE}"""',
        "lib/site-packages/alignpre_jax-0.1.dist-info/METADATA": f"Name: x\n\nOurs too. {SENTENCE}",
        "lib/site-packages/alpha.py": f'"""Alpha. {SENTENCE}"""',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    (site / "beta/latin.txt").write_bytes("Café. ".encode("latin-1") + SENTENCE.encode())
    paths = {"stdlib": str(library), "purelib": str(site), "platlib": str(site)}
    monkeypatch.setattr(harvest.sysconfig, "get_paths", lambda: paths)
    monkeypatch.setattr(harvest, "_MIN_DOCUMENT_CHARACTERS", 10)


def test_harvest_reads_docstrings_and_text_in_sorted_order_without_running_anything(environment):
    before = set(sys.modules)
    documents = list(harvest_packages())
    assert [(d.id, d.text.removesuffix(SENTENCE).strip()) for d in documents] == [
        ("python/zeta.py", ""),
        ("alpha.py", "Alpha."),
        ("beta/core.py", "Module."),
        ("beta/core.py#A", "Class."),
        ("beta/core.py#A.f", "Getter."),
        ("beta/core.py#A.f~2", "Setter."),
        ("beta/core.py#A.f.inner", "Inner."),
        ("beta/guide.rst", "Guide."),
        ("beta-1.0.dist-info/METADATA", "Description."),
    ]
    assert set(sys.modules) == before
    assert {d.labels["package"] for d in documents} == {"python", "alpha.py", "beta", "beta-1.0.dist-info"}


def test_harvest_stops_at_the_bytes_asked_for(environment):
    documents = list(harvest_packages(350))
    assert [d.id for d in documents] == ["python/zeta.py", "alpha.py", "beta/core.py", "beta-1.0.dist-info/METADATA"]
    assert len(list(harvest_packages(1))) == 1


def test_the_installed_environment_gives_unique_reproducible_english():
    documents = list(harvest_packages(60_000))
    assert documents == list(harvest_packages(60_000))
    assert len({d.id for d in documents}) == len(documents)
    size = sum(len(d.text.encode()) for d in documents)
    assert 60_000 <= size < 80_000
    assert not any("alignpre" in d.id for d in documents)
