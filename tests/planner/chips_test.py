import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.planner import CHIPS, parse_topology


@pytest.mark.parametrize(
    ("kind", "megahertz"),
    [("v4", 1050), ("v5e", 1500), ("v5p", 1750), ("v6e", 1750), ("tpu7x", 2200)],
)
def test_clocks_are_plausible(kind, megahertz):
    assert CHIPS[kind].clock / 1e6 == pytest.approx(megahertz, rel=0.01)


@pytest.mark.parametrize("kind", CHIPS)
def test_figures_hang_together(kind):
    chip = CHIPS[kind]
    assert 0.9 < chip.usable_hbm * chip.devices / chip.hbm < 1.01  # v5p: 95.73 GiB usable, documented as 95
    assert 100 < chip.peak_flops / chip.hbm_bandwidth < 600  # FLOPs per byte at which compute binds
    assert chip.dcn_bandwidth < chip.ici_bandwidth < chip.hbm_bandwidth


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
