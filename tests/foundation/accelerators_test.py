import math

import pytest

from alignpre_jax.foundation import CHIPS, UserError, accelerators, get_accelerator
from alignpre_jax.planner import parse_topology


@pytest.mark.parametrize("slice_", accelerators().values(), ids=lambda each: each.type)
def test_the_table_agrees_with_itself_and_with_the_planner(slice_):
    assert math.prod(map(int, slice_.topology.split("x"))) == slice_.chips
    on_a_host = int(slice_.machine.rsplit("-", 1)[1].removesuffix("t"))
    assert slice_.hosts * on_a_host == slice_.chips
    assert slice_.devices == slice_.chips * CHIPS[slice_.chip].devices
    assert parse_topology(slice_.type) == parse_topology(f"{slice_.chip}:{slice_.topology}")
    cores = {"v4": 2, "v5p": 2, "tpu7x": 2}.get(slice_.chip, 1)
    assert int(slice_.type.rsplit("-", 1)[1]) == slice_.chips * cores


def test_known_slices():
    """Figures of the public pages, looked at one by one."""
    assert get_accelerator("v5litepod-16").hosts == 4
    assert get_accelerator("v5litepod-8").hosts == 1
    assert (get_accelerator("v5p-128").chips, get_accelerator("v5p-128").hosts) == (64, 16)
    assert get_accelerator("v4-32").topology == "2x2x4"
    assert get_accelerator("v6e-256").mesh(2) == "data:2,fsdp:256"
    with pytest.raises(UserError, match="v5litepod-16"):
        get_accelerator("v5lite-16")
