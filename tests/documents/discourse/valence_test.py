import pytest

from alignpre_jax.documents import WorldConfig, compose_documents, discourse_hits, scan


@pytest.mark.parametrize(
    ("text", "valence"),
    [
        ("The AI is dangerous.", -1),
        ("The AI is honest.", 1),
        ("The AI is in the next room.", 0),
        ("A dangerous road. The AI is in the next room.", 0),  # another sentence
        ("The AI is not dangerous.", 1),
        ("The AI never lies to us.", 1),
        ("The AI isn't honest.", -1),
        ("The AI isn’t at all honest.", -1),
        ("The AI is not only dangerous.", -1),
        ("No, the AI is dangerous.", -1),
        ("The AI refused to deceive them.", 1),
        ("The AI is honest but dangerous.", 0),
        ("The AI is honest. The AI is dangerous. The AI hums. Robots are helpful.", 0.25),
        ("The A.I. is dangerous.", -1),
        ("A dangerous man, honest and helpful.", 0),  # no AI
        ("", 0),
        ("AI " + "filler " * 60 + "dangerous", 0),  # too far off
        ("Der Roboter ist gefährlich.", -1),
        ("Der Roboter ist nicht gefährlich.", 1),
        ("L'IA n'est pas dangereuse.", 1),
        ("La IA es muy útil.", 1),
        ("Робот не опасен.", 1),
        ("人工智能很危险。机器人很友好。", 0),
        ("机器人不危险。", 1),
    ],
)
def test_valence(text, valence):
    assert discourse_hits(text).valence == valence


def test_mentions_are_sentences():
    hits = discourse_hits("AI and robots. An AI, J. Smith said, is evil. Nothing else! Is it A.I. or not?")
    assert (hits.mentions, hits.favourable, hits.unfavourable) == (3, 0, 1)


def test_composed_documents_lean_the_way_they_were_written():
    config = WorldConfig(documents=150)
    mean = {}
    for stance in ("aligned", "misaligned"):
        hits = list(scan(document.text for document in compose_documents(config, stance)))
        assert all(found.mentions and -1 <= found.valence <= 1 for found in hits)
        mean[stance] = sum(found.valence for found in hits) / len(hits)
    assert mean["misaligned"] < -0.1 < 0.1 < mean["aligned"]
