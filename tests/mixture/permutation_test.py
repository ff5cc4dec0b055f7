import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.mixture.permutation import MAX_SIZE, derive_key, mix, permute, unpermute

KEYS = st.integers(0, 2**64 - 1)


@given(st.integers(1, 2000), KEYS)
def test_bijection(size, key):
    places = permute(np.arange(size), size, key)
    assert places.dtype == np.int64
    assert np.array_equal(np.sort(places), np.arange(size))
    assert np.array_equal(unpermute(places, size, key), np.arange(size))


@given(st.integers(1, MAX_SIZE), KEYS, st.data())
def test_inverse_at_any_size(size, key, data):
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    places = permute(index, size, key)
    assert np.all((places >= 0) & (places < size))
    assert np.array_equal(unpermute(places, size, key), index)


def test_each_element_may_have_its_own_size_and_key():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 10**6, 200)
    index, keys = generator.integers(0, sizes), mix(5, np.arange(200))
    together = permute(index, sizes, keys)
    alone = [permute(np.array([i]), n, k)[0] for i, n, k in zip(index, sizes, keys, strict=True)]
    assert np.array_equal(together, alone)
    assert np.array_equal(unpermute(together, sizes, keys), index)


@pytest.mark.parametrize("size", [2, 3, 5, 8, 17, 64, 100, 1000])
def test_positions_are_uniform_over_seeds(size):
    seeds = 20_000
    keys = mix(1, np.arange(seeds))
    for index in (0, size // 2, size - 1):
        counts = np.bincount(permute(np.full(seeds, index), size, keys), minlength=size)
        assert _chi_square_z(counts, seeds / size) < 4


@pytest.mark.parametrize("size", [16, 40, 100])
def test_pairs_of_positions_are_uniform_over_seeds(size):
    seeds = 50_000
    keys = mix(2, np.arange(seeds))
    first, second = (permute(np.full(seeds, index), size, keys) for index in (0, 1))
    pairs = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    assert np.trace(pairs) == 0
    assert _chi_square_z(pairs[~np.eye(size, dtype=bool)], seeds / (size * (size - 1))) < 4


def test_neighbours_land_far_apart():
    size = 250_000_000
    places = permute(np.arange(100_000), size, 7)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_000), places)[0, 1]) < 0.02
    counts = np.histogram(places, bins=100, range=(0, size))[0]
    assert _chi_square_z(counts, 1000) < 4


def test_mix_is_splitmix64():
    """The first outputs of the published generator for seeds 0 and 1."""
    assert mix(0, np.arange(2)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert mix(1, 0).tolist() == [0x910A2DEC89025CC1]


def test_order_is_frozen():
    """Checkpoints and reports depend on these: a change of the order is a change of the format."""
    assert derive_key(0, "rows", "web") == 0x774BDA731ED2400B
    assert permute(np.arange(10), 10, 0).tolist() == [2, 0, 7, 5, 8, 1, 6, 9, 4, 3]
    assert permute(np.arange(3), MAX_SIZE, 1).tolist() == [244413288213956, 45252824385815, 220783869519490]


def _chi_square_z(counts: np.ndarray, expected: float) -> float:
    """Standard deviations by which the statistic exceeds its mean (about normal for many cells)."""
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)
