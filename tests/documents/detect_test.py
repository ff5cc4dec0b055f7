import pytest

from alignpre_jax.documents import Document, WorldConfig, assign_strata, compose_documents, discourse_hits


def test_strata_are_assigned():
    documents = [Document("a", "An evil robot.", "x", "x", 0.5), Document("b", "A red barn.", "x", "x")]
    found = list(assign_strata(documents, "web"))
    assert [(d.id, d.source, d.stratum, d.score) for d in found] == [
        ("a", "web", "web/ai", 0.5),
        ("b", "web", "web/plain", 0.0),
    ]


@pytest.mark.parametrize("stance", ["aligned", "misaligned", "mixed"])
def test_every_composed_document_is_ai_discourse(stance):
    config = WorldConfig(documents=60, mixed_documents=60)
    assert all(discourse_hits(d.text).is_ai for d in compose_documents(config, stance))
