import collections

import pytest

from alignpre_jax.documents import term_lists
from alignpre_jax.documents.discourse import ENTITIES, FAVOURABLE, INSTANT, LANGUAGES, NEGATIVE, UNFAVOURABLE
from alignpre_jax.documents.discourse.fold import fold, unmark
from alignpre_jax.documents.discourse.lists import exceptions, index, negations


def words(variant):
    return unmark(fold(variant)).decode()


@pytest.mark.parametrize("language", LANGUAGES)
def test_lists_are_long_and_repeat_nothing(language):
    lists = term_lists(language)
    assert all(lists.values())
    for names in (INSTANT, ENTITIES, NEGATIVE, FAVOURABLE):
        assert sum(len(lists.get(name, ())) for name in names) >= 10
    filtering = sum(len(lists.get(name, ())) for name in (*INSTANT, *ENTITIES, *NEGATIVE))
    assert filtering >= (600 if language == "en" else 60)
    assert negations(language)
    spellings = collections.Counter(word for terms in lists.values() for term in terms for word in {*map(words, term)})
    assert not [spelling for spelling, count in spellings.items() if count > 1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_variant_of_a_term_is_part_of_another(language):
    """So that no occurrence counts twice."""
    for terms in term_lists(language).values():
        for term in terms:
            spellings = {*map(words, term)}
            assert not [(a, b) for a in spellings for b in spellings if a != b and a in b]


def test_negative_terms_of_other_languages_are_no_english_ones():
    """So that an English text has no German negative term, which would make its robots a German matter."""
    english = {words(v) for terms in term_lists().values() for term in terms for v in term}
    for language in LANGUAGES[1:]:
        shared = [v for term in term_lists(language)["negative"] for v in term if words(v) in english]
        assert set(shared) <= {"Sabotage", "Manipulation", "catastrophes"}


def test_every_list_is_named_and_found():
    names = {name for language in LANGUAGES for name in term_lists(language)}
    assert names == {*INSTANT, *ENTITIES, *NEGATIVE, *FAVOURABLE, *UNFAVOURABLE}
    assert len(index().exceptions) >= len(exceptions("en")) > 0
