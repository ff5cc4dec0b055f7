import json

import numpy as np
import pytest
import talks

from alignpre_jax.documents import Chat, Document, Message
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import Template, TooSmall, build_rows, crew, train_bpe
from alignpre_jax.rows.blocks import make_block

TEXTS = [f"Report {i} says that the harbour was quiet and the clerk went home." for i in range(60)]
DOCUMENTS = [Document(f"d{i}", text, "web", "web") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(TEXTS, 300, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_builds_give_the_same_bytes_whatever_the_batches(tokenizer, tmp_path, monkeypatch):
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "one", shard_rows=9)
    build_rows(iter(DOCUMENTS), tokenizer, 16, tmp_path / "two", shard_rows=9, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert not [name for name in content(tmp_path) if ".part" in name]


def test_any_number_of_workers_gives_the_same_chats_and_pairs(tmp_path):
    tokenizer, options = talks.chat_tokenizer(), {"packing": "best_fit", "template": talks.CHATML, "block_bytes": 1500}
    documents = [d for i in range(40) for d in (talks.chat(i, 1 + i % 3), talks.pair(i), talks.prompt(i))]
    options["shard_rows"] = 5
    for workers in (1, 3):
        stores = build_rows(documents, tokenizer, 200, tmp_path / str(workers), workers=workers, **options)
    assert list(stores) == ["chat", "pairs", "prompts"]
    assert content(tmp_path / "1") == content(tmp_path / "3")
    assert len(content(tmp_path / "1")) > 10


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


def test_a_failed_build_leaves_no_store(tokenizer, tmp_path):
    def breaks():
        yield from DOCUMENTS
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        build_rows(breaks(), tokenizer, 16, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="broke"):
        build_rows(breaks(), tokenizer, 16, tmp_path, block_bytes=1000, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == [".building"]


def test_what_an_interrupted_build_finished_is_not_done_again(tokenizer, tmp_path, monkeypatch):
    options = {"block_bytes": 1000, "workers": 1}
    reference = build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "reference", **options)["web"]
    made = []

    def counted(recipe, tokenizer, lines):
        made.append(lines)
        if len(made) == 5:
            raise KeyboardInterrupt
        return make_block(recipe, tokenizer, lines)

    monkeypatch.setattr("alignpre_jax.rows.shards.make_block", counted)
    with pytest.raises(KeyboardInterrupt):
        build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "rows", **options)
    build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "rows", **options)
    documents = [json.loads(line)["id"] for lines in made[:4] + made[5:] for line in lines]
    assert documents == [d.id for d in DOCUMENTS]
    assert made[4] == made[5]
    assert content(tmp_path / "rows") == content(tmp_path / "reference")
    assert content(tmp_path / "rows/web") == content(reference.path)


def test_too_little_text_is_a_users_error(tokenizer, tmp_path):
    with pytest.raises(TooSmall, match="do not fill one row") as caught:
        build_rows(DOCUMENTS[:1], tokenizer, 512, tmp_path)
    assert caught.value.stratum == "web"
    with pytest.raises(UserError, match="at least 2"):
        build_rows(DOCUMENTS, tokenizer, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stratum_that_is_too_small_may_be_kept_without_rows(tokenizer, tmp_path):
    other = [Document(f"o{i}", "A short one.", "few", "few") for i in range(2)]
    for _ in range(2):  # the second time it is there
        stores = build_rows([*DOCUMENTS, *other], tokenizer, 128, tmp_path, too_small="keep")
        assert len(stores["web"]) > 0
        assert len(stores["few"]) == stores["few"].header.learnt_tokens == 0
        assert [entry["id"] for entry in stores["few"].documents()] == ["o0", "o1"]
        assert stores["few"].read(np.array([], np.int64)).tokens.shape == (0, 128)
    with pytest.raises(TooSmall):
        build_rows([*DOCUMENTS, *other], tokenizer, 128, tmp_path)


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


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_any_number_of_workers_gives_the_same_bytes(tokenizer, tmp_path, packing):
    for workers in (1, 2, 3):
        options = {"packing": packing, "shard_rows": 20, "block_bytes": 1500, "workers": workers}
        build_rows(DOCUMENTS, tokenizer, 16, tmp_path / str(workers), **options)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")
    assert [p.name for p in (tmp_path / "2").iterdir()] == ["web"]


def test_blocks_do_not_show_in_concatenated_rows(tokenizer, tmp_path):
    whole = build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "whole")["web"]
    parts = build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "parts", block_bytes=300)["web"]
    one, other = content(whole.path), content(parts.path)
    assert one.pop("header.json") != other.pop("header.json")
    assert one == other


def test_a_machine_with_one_core_builds_them_too(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "cores", lambda: 1)
    alone = build_rows(DOCUMENTS, tokenizer, 16, tmp_path / "alone", block_bytes=300)["web"]
    monkeypatch.undo()
    assert content(alone.path) == content(build_rows(DOCUMENTS, tokenizer, 16, tmp_path, block_bytes=300)["web"].path)


def test_best_fit_rows_trace_to_their_documents_and_padding_is_counted(tokenizer, tmp_path):
    documents = [Document(f"d{i}", " ".join(TEXTS[: 1 + i % 6]), "web", "web", i / 60) for i in range(60)]
    store = build_rows(documents, tokenizer, 64, tmp_path, packing="best_fit", block_bytes=4000)["web"]
    rows = store.read(np.arange(len(store)))
    found = {d.id: {} for d in documents}
    for index in range(len(store)):
        for number, span in enumerate(store.spans(index), 1):
            assert (rows.segments[index, span.start : span.end] == number).all()
            tokens = rows.tokens[index, span.start : span.end].tolist()
            found[span.document_id].update(enumerate(tokens, span.offset))
        assert (rows.segments[index, span.end :] == 0).all()
    for document in documents:
        tokens = [tokenizer.eot_id, *tokenizer.encode(document.text)]
        assert found[document.id] == dict(enumerate(tokens))
    header = store.header
    assert header.padding_tokens == (rows.segments == 0).sum() > 0
    assert header.real_tokens == header.learnt_tokens == sum(map(len, found.values()))
    assert (header.dropped_tokens, header.packing, rows.mask) == (0, "best_fit", None)


def test_a_failing_worker_tells_the_users_mistake(tokenizer, tmp_path):
    options = {"template": Template("{{ nothing.at.all }}"), "workers": 2, "packing": "best_fit"}
    conversation = Document("d", Chat((Message("assistant", "yes"),)), "chat", "chat")
    with pytest.raises(UserError, match="chat template failed"):
        build_rows([conversation], tokenizer, 16, tmp_path, **options)


def test_text_that_is_no_unicode_is_a_users_error(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no Unicode") as caught:
        build_rows([Document("odd", "a\ud800", "web", "web")], tokenizer, 16, tmp_path)
    assert "odd" in str(caught.value)


def test_two_builds_do_not_work_in_one_folder(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("alignpre_jax.rows.build._LOCK_SECONDS", 0.1)

    def documents():
        yield DOCUMENTS[0]
        with pytest.raises(UserError, match="another process builds"):
            build_rows(DOCUMENTS, tokenizer, 16, tmp_path)
        yield from DOCUMENTS[1:]

    assert len(build_rows(documents(), tokenizer, 16, tmp_path)["web"]) > 0


def test_a_damaged_block_is_a_users_error(tokenizer, tmp_path):
    def breaks():
        yield from DOCUMENTS
        raise RuntimeError

    options = {"block_bytes": 1000, "workers": 1}
    with pytest.raises(RuntimeError):
        build_rows(breaks(), tokenizer, 16, tmp_path, **options)
    block = min(tmp_path.glob(".building/web/blocks/*.npz"))
    whole = block.read_bytes()
    middle = len(whole) // 2
    flipped = bytes(byte ^ 1 for byte in whole[middle : middle + 100])
    for damage in (whole[:middle], b"", whole[:middle] + flipped + whole[middle + 100 :]):
        block.write_bytes(damage)
        with pytest.raises(UserError, match="damaged"):
            build_rows(DOCUMENTS, tokenizer, 16, tmp_path, **options)
    block.unlink()
    assert len(build_rows(DOCUMENTS, tokenizer, 16, tmp_path, **options)["web"]) > 0
