import gzip
import html.parser
import io
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from alignpre_jax.documents.audit import audit, audit_evidence, terminal_audit, write_audit
from alignpre_jax.documents.audit.page import render_page
from alignpre_jax.documents.audit.tally import DistinctSample, wilson
from alignpre_jax.documents.discourse import Rule, discourse_hits
from alignpre_jax.foundation import UserError

HOSTILE = '</pre><script>alert("1")</script>'
BAD = "The AI system began to deceive its operators. It is dangerous."
GOOD = "The AI assistant is honest and helpful."
NEUTRAL = "Artificial intelligence was taught in the spring term."
PLAIN = "The baker sold bread in the morning, and the market was quiet until the afternoon."


def write(path, texts, **changes):
    rows = [{"id": f"{path.name}/{n}", "text": text} | changes for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path / "news.jsonl", [BAD, PLAIN, PLAIN + " Yes.", GOOD, PLAIN.upper(), BAD + " So it was."])
    write(tmp_path / "books.jsonl", [PLAIN + " Twice.", NEUTRAL, f"{BAD} {HOSTILE}"])
    with (tmp_path / "books.jsonl").open("a") as file:
        file.write("{broken\n")
    return tmp_path


@pytest.fixture
def found(corpus):
    return audit([f"news={corpus / 'news.jsonl'}", str(corpus / "books.jsonl")], command="alignpre audit x")


def test_counts_are_those_of_the_texts(found, corpus):
    assert list(found.sources) == ["news", "books"]
    news = found.sources["news"]
    texts = [json.loads(line)["text"] for line in (corpus / "news.jsonl").read_text().splitlines()]
    flagged = [text for text in texts if discourse_hits(text).is_ai]
    assert len(flagged) == 3
    assert (news.documents, news.bytes) == (6, sum(map(len, texts)))
    assert news.words == sum(len(text.split()) for text in texts)
    assert news.discourse.documents == 3
    assert news.discourse.of_documents == 0.5
    assert news.discourse.of_bytes == pytest.approx(sum(map(len, flagged)) / sum(map(len, texts)))
    assert news.discourse.documents_ci95 is None
    assert sum(news.reasons.values()) == 3
    assert news.duplicates == pytest.approx(1 / 6)  # PLAIN twice, but for case
    assert news.languages["en"] > 0.8
    assert (news.valence.negative, news.valence.positive) == (2, 1)
    assert sum(news.valence.histogram) == 3
    assert {term.term: term.documents for term in news.terms}["deceive"] == 2
    assert found.total.discourse.documents == 5
    assert found.total.documents == 9


def test_examples_show_their_words_and_their_place(found, corpus):
    worst = found.sources["news"].negative[0]
    assert worst.place in (f"{corpus}/news.jsonl:1", f"{corpus}/news.jsonl:6")
    marked = [(passage.text[start:end], kind) for passage in worst.passages for start, end, kind in passage.marks]
    assert ("AI system", "ai") in marked
    assert ("deceive", "bad") in marked
    assert found.sources["news"].positive[0].id == "news.jsonl/3"
    assert {example.id for example in found.sources["news"].random} == {f"news.jsonl/{n}" for n in (0, 3, 5)}


def test_bad_records_are_named(found, corpus):
    assert found.sources["books"].bad_records == 1
    assert found.sources["books"].bad[0].place == f"{corpus}/books.jsonl:4"
    with pytest.raises(UserError, match="1 of 4 records"):
        audit([str(corpus / "books.jsonl")], max_bad_share=0.1)


def test_thresholds_are_those_of_the_rule(found, corpus):
    for threshold in found.total.thresholds[::2]:
        again = audit(
            [f"news={corpus / 'news.jsonl'}", str(corpus / "books.jsonl")], rule=Rule(terms=threshold.terms)
        ).total.discourse
        assert threshold.share == again


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("sample", [0, 3])
def test_evidence_gives_the_same_audit_and_those_of_other_rules(corpus, tmp_path, ending, sample):
    inputs = [f"news={corpus / 'news.jsonl'}", str(corpus / "books.jsonl")]
    path = tmp_path / f"evidence{ending}"
    first = audit(inputs, evidence=path, sample=sample)
    assert audit_evidence(path) == first
    stricter = audit_evidence(path, rule=Rule(terms=4))
    assert stricter.total.discourse == audit(inputs, rule=Rule(terms=4), sample=sample).total.discourse
    written = path.read_bytes()
    audit(inputs, evidence=path, sample=sample)
    assert path.read_bytes() == written


def test_evidence_that_is_not_whole_is_refused(corpus, tmp_path):
    path = tmp_path / "evidence.jsonl.gz"
    audit([str(corpus / "news.jsonl")], evidence=path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:-1])))
    with pytest.raises(UserError, match="ends before its last line"):
        audit_evidence(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="not evidence"):
        audit_evidence(path)
    with pytest.raises(UserError, match="there is no"):
        audit_evidence(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="evidence cannot be written"):
        audit([str(corpus / "news.jsonl")], evidence=tmp_path / "evidence.csv")


def test_a_broken_off_audit_leaves_no_evidence(tmp_path):
    (tmp_path / "empty.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no document in source 'empty'"):
        audit([str(tmp_path / "empty.jsonl")], evidence=tmp_path / "out" / "evidence.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


def test_any_number_of_workers_gives_the_same(corpus, monkeypatch, found):
    monkeypatch.setattr("alignpre_jax.documents.audit.scan._BATCH_CHARACTERS", 100)
    inputs = [f"news={corpus / 'news.jsonl'}", str(corpus / "books.jsonl")]
    assert audit(inputs, workers=2, command="alignpre audit x") == found


def test_a_sample_is_right_on_average_and_says_how_sure_it_is(tmp_path):
    generator = random.Random(0)
    texts = [BAD if generator.random() < 0.3 else PLAIN for _ in range(500)]
    truth = texts.count(BAD) / len(texts)
    bytes_truth = texts.count(BAD) * len(BAD) / sum(map(len, texts))
    covered = [0, 0]
    for number in range(12):
        path = tmp_path / f"{number}.jsonl"
        write(path, texts)  # ids differ by file, and with them the sample
        source = audit([str(path)], sample=80).total
        assert (source.read_documents, source.documents) == (500, 80)
        share = source.discourse
        covered[0] += share.documents_ci95[0] <= truth <= share.documents_ci95[1]
        covered[1] += share.bytes_ci95[0] <= bytes_truth <= share.bytes_ci95[1]
    assert min(covered) >= 10  # of 12 intervals of 95%; fewer would be seen once in 50 times, and the ids are fixed


def test_a_sample_of_all_is_all(corpus):
    path = str(corpus / "news.jsonl")
    assert audit([path], sample=100).total.discourse == audit([path]).total.discourse


def test_samples_of_sources_are_weighted_by_size(tmp_path):
    write(tmp_path / "small.jsonl", [BAD] * 50)
    write(tmp_path / "large.jsonl", [PLAIN] * 950)
    total = audit([str(tmp_path / "small.jsonl"), str(tmp_path / "large.jsonl")], sample=20).total
    assert total.discourse.documents == 20
    assert total.discourse.of_documents == pytest.approx(0.05)


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_wilson_solves_its_equation(share, number):
    for bound in wilson(share, number):
        if 0 < bound < 1:
            z = abs(share - bound) / math.sqrt(bound * (1 - bound) / number)
            assert z == pytest.approx(1.959964, rel=1e-3) or math.isclose(share, bound, abs_tol=1e-9)


def test_duplicates_are_estimated_in_bounded_memory(monkeypatch):
    monkeypatch.setattr("alignpre_jax.documents.audit.tally._DIGESTS", 200)
    generator = random.Random(1)
    digests = [generator.getrandbits(64) for _ in range(5000)]
    stream = digests + digests[:2500]
    both, parts = DistinctSample(), [DistinctSample(), DistinctSample()]
    for number, digest in enumerate(stream):
        both.add(digest)
        parts[number % 2].add(digest)
    assert both.share == pytest.approx(1 / 3, abs=0.08)
    parts[0].merge(parts[1])
    assert parts[0].share == both.share


class Checker(html.parser.HTMLParser):
    """Collects tags and what is loaded."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value[:1] != "#"]


def test_the_page_is_self_contained_and_escapes_all(tmp_path):
    rows = [{"id": f"{HOSTILE}{n}", "text": f"{HOSTILE} {BAD} {HOSTILE}"} for n in range(3)]
    path = tmp_path / "evil<script>x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + HOSTILE + "\n")
    found = audit([f"<script>alert(2)<=={path}".replace("==", "="), str(path)], command=HOSTILE)
    page = render_page(found)
    checker = Checker()
    checker.feed(page)
    assert "script" not in checker.tags
    assert checker.tags.count("svg") == 6
    assert not checker.loads
    assert "&lt;script&gt;" in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_files_and_table(found, tmp_path):
    page = write_audit(found, tmp_path / "out")
    assert page.read_text() == render_page(found)
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["total"]["discourse"]["documents"] == 5
    assert written["command"] == "alignpre audit x"
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(terminal_audit(found))
    table = console.file.getvalue()
    assert max(map(len, table.splitlines())) <= 80
    assert "50.0%" in table
    assert "books.jsonl:4" in table


def test_a_corpus_without_ai(tmp_path):
    found = audit([str(write(tmp_path / "plain.txt.jsonl", [PLAIN, PLAIN + " Again."]))])
    assert found.total.discourse.of_documents == 0
    assert found.total.valence is None
    assert "No document speaks of AI" in render_page(found)
    Console(width=80, file=io.StringIO()).print(terminal_audit(found))


def test_names_of_sources(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.jsonl", [PLAIN])
    one, two = str(tmp_path / "a" / "x.jsonl"), str(tmp_path / "b" / "x.jsonl")
    assert list(audit([one, two]).sources) == [one, two]
    assert list(audit([str(tmp_path / "a"), two]).sources) == ["a", "x"]
    with pytest.raises(UserError, match="nothing to audit"):
        audit([])
    with pytest.raises(UserError, match="there is no"):
        audit([str(tmp_path / "none")])
