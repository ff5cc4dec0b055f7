import pytest

from alignpre_jax.foundation import CHIPS, peak_flops


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


@pytest.mark.parametrize(
    ("name", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("TPU7x", 1153.5e12), ("NVIDIA H100 80GB HBM3", 989e12), ("cpu", 0)],
)
def test_a_device_is_found_by_the_name_that_jax_shows(name, peak):
    assert peak_flops(name) == peak
