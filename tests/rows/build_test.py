import os
import signal
import subprocess
import sys
import textwrap

import pytest

from alignpre_jax.documents import Document
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import build_rows, open_rows, train_bpe

TEXTS = [f"Report {i} says that the harbour was quiet and the clerk went home." for i in range(60)]
DOCUMENTS = [Document(f"d{i}", text, "web", "web") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(TEXTS, 300, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_builds_give_the_same_bytes_whatever_the_batches(tokenizer, tmp_path, monkeypatch):
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "one", shard_rows=9)
    monkeypatch.setattr("alignpre_jax.rows.build._BATCH_DOCUMENTS", 7)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    build_rows(iter(DOCUMENTS), tokenizer, 16, tmp_path / "two", shard_rows=9)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert not [name for name in content(tmp_path) if ".part" in name]


def test_strata_are_built_independently(tokenizer, tmp_path):
    other = [Document(f"o{i}", f"Another voice, number {i}.", "aligned", "aligned") for i in range(30)]
    mixed = [d for pair in zip(DOCUMENTS, other, strict=False) for d in pair] + DOCUMENTS[30:]
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "alone")
    build_rows(mixed, tokenizer, 16, tmp_path / "beside")
    assert content(tmp_path / "alone/web") == content(tmp_path / "beside/web")


def test_the_same_inputs_keep_the_store_and_others_are_refused(tokenizer, tmp_path):
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path)
    before = (tmp_path / "web/header.json").stat()
    assert len(build_rows(DOCUMENTS, tokenizer, 16, tmp_path)["web"]) > 0
    assert (tmp_path / "web/header.json").stat().st_mtime_ns == before.st_mtime_ns
    for documents, length, difference in (
        (DOCUMENTS[1:], 16, "documents: 60 -> 59"),
        (DOCUMENTS, 17, "length: 16 -> 17"),
    ):
        with pytest.raises(UserError, match=difference):
            build_rows(documents, tokenizer, length, tmp_path)
    changed = [Document("d0", TEXTS[0], "web", "web", score=1.0), *DOCUMENTS[1:]]
    with pytest.raises(UserError, match="inputs_digest"):
        build_rows(changed, tokenizer, 16, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["web"]


def test_a_failed_build_leaves_nothing(tokenizer, tmp_path):
    def breaks():
        yield from DOCUMENTS
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        build_rows(breaks(), tokenizer, 16, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_store_and_the_next_one_cleans_up(tokenizer, tmp_path):
    reference = build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "reference")["web"]
    train_bpe(TEXTS, 300, tmp_path / "tokenizer.json")
    program = textwrap.dedent("""
        import os, signal, sys
        from alignpre_jax.documents import Document
        from alignpre_jax.rows import build, load_tokenizer
        build._BATCH_DOCUMENTS = 10
        def documents():
            for i in range(60):
                if i == 45:
                    os.kill(os.getpid(), signal.SIGKILL)
                text = f"Report {i} says that the harbour was quiet and the clerk went home."
                yield Document(f"d{i}", text, "web", "web")
        build.build_rows(documents(), load_tokenizer(sys.argv[1]), 16, sys.argv[2])
    """)
    arguments = [sys.executable, "-c", program, str(tmp_path / "tokenizer.json"), str(tmp_path / "rows")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(arguments, env=environment).returncode == -signal.SIGKILL
    assert [p.name.endswith(".part") for p in (tmp_path / "rows").iterdir()] == [True]
    with pytest.raises(UserError, match="no row store"):
        open_rows(tmp_path / "rows/web")
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "rows")
    assert content(tmp_path / "rows/web") == content(reference.path)
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == ["web"]


def test_too_little_text_is_a_users_error(tokenizer, tmp_path):
    with pytest.raises(UserError, match="do not fill one row"):
        build_rows(DOCUMENTS[:1], tokenizer, 512, tmp_path)
    with pytest.raises(UserError, match="at least 2"):
        build_rows(DOCUMENTS, tokenizer, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stratum", ["", "/etc", "../up", "a/../b", "a//b", "a/", ".hidden", "a b"])
def test_a_stratum_cannot_leave_its_folder(tokenizer, tmp_path, stratum):
    with pytest.raises(UserError, match="stratum"):
        build_rows([Document("d", "text", "web", stratum)], tokenizer, 16, tmp_path)


def test_other_peoples_files_are_left_alone(tokenizer, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web/thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"):
        build_rows(DOCUMENTS, tokenizer, 16, tmp_path)
    assert (tmp_path / "web/thesis.txt").read_text() == "years of work"


def test_a_store_does_not_lie_inside_another(tokenizer, tmp_path):
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path)
    inner = [Document(d.id, d.text, "web", "web/ai") for d in DOCUMENTS]
    with pytest.raises(UserError, match="inside another"):
        build_rows(inner, tokenizer, 16, tmp_path)
    for documents in ([*inner, *DOCUMENTS], [*DOCUMENTS, *inner]):
        with pytest.raises(UserError, match="inside another"):
            build_rows(documents, tokenizer, 16, tmp_path / "new")
        assert content(tmp_path / "new") == {}


def test_progress_is_reported(tokenizer, tmp_path):
    events = []
    store = build_rows(DOCUMENTS, tokenizer, 16, tmp_path, events.append)["web"]
    assert events[-1].done == 60
    assert events[-1].figures["tokens"] == store.header.tokens + store.header.dropped_tokens
