import pytest

from alignpre_jax.foundation import CHIPS, UserError
from alignpre_jax.planner import parse_topology


def test_topologies():
    topology = parse_topology("v5e:16x16", slices=2)
    assert (topology.name, topology.chips, topology.chip) == ("v5e:16x16", 512, CHIPS["v5e"])
    assert parse_topology("7x:2x2x1").name == "tpu7x:2x2x1"
    assert parse_topology("v5p:4x4x8").chips == 128


@pytest.mark.parametrize(
    ("text", "slices", "says"),
    [
        ("v5x:4x4", 1, "did you mean"),
        ("v5e", 1, "v5e:4x4"),
        ("v5e:16", 1, "v5e:4x4"),
        ("v5e:4x0", 1, "no shape"),
        ("v5e:4x4", 0, "--slices"),
    ],
)
def test_mistakes(text, slices, says):
    with pytest.raises(UserError, match=says):
        parse_topology(text, slices)
