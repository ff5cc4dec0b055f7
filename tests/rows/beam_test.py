import random

import pytest

from alignpre_jax.documents import Document, ScoredSpan
from alignpre_jax.rows import build_rows, load_tokenizer

beam = pytest.importorskip("apache_beam")
pytestmark = pytest.mark.slow

DOCUMENTS = [
    Document(
        f"d{i}",
        f"Report {i}: " + "the harbour was quiet. " * (i % 9),
        "web",
        "web/ai" if i % 4 == 0 else "web/plain",
        i / 200,
        spans=(ScoredSpan(0, 6, 0.5),) if i % 7 == 0 else (),
    )
    for i in range(200)
]


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(documents, root, **options):
    from alignpre_jax.rows.beam import BuildRows

    shuffled = list(enumerate(documents))
    random.Random(1).shuffle(shuffled)
    with beam.Pipeline("DirectRunner") as pipeline:
        pipeline | beam.Create(shuffled) | BuildRows(load_tokenizer("byte"), 64, root, **options)


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_the_files_are_those_of_build_rows(tmp_path, packing, monkeypatch):
    options = {"packing": packing, "shard_rows": 30, "block_bytes": 3000}
    build_rows(DOCUMENTS, load_tokenizer("byte"), 64, tmp_path / "here", **options)
    monkeypatch.setattr("alignpre_jax.rows.beam._SPAN", 17)
    run(DOCUMENTS, tmp_path / "beam", **options)
    assert content(tmp_path / "beam") == content(tmp_path / "here")
    assert len(content(tmp_path / "beam")) > 8


def test_another_store_is_not_overwritten(tmp_path):
    build_rows(DOCUMENTS, load_tokenizer("byte"), 64, tmp_path)
    before = content(tmp_path)
    run(DOCUMENTS, tmp_path)
    assert content(tmp_path) == before
    with pytest.raises(Exception, match="made from other inputs"):
        run(DOCUMENTS[1:], tmp_path)
    assert content(tmp_path) == before
