"""Compiled programs are shared by the engines of a process, and each function has its own."""

import jax
import jax.numpy as jnp
import pytest

from alignpre_jax.model import get_preset
from alignpre_jax.sampling.programs import Programs

CONFIG = get_preset("small_world")


def adds(amount):
    def step(config, sizes, weights, x):
        return weights + x + amount

    return jax.jit(step, static_argnums=(0, 1))


@pytest.fixture
def programs():
    return Programs(CONFIG, jnp.zeros(3), None)


def test_two_functions_of_one_name_are_two_programs(programs):
    one, two = adds(1), adds(2)
    x = jnp.arange(3.0)
    assert programs.call(one, (3,), x).tolist() == [1.0, 2.0, 3.0]
    assert programs.call(two, (3,), x).tolist() == [2.0, 3.0, 4.0]
    assert len(programs.used) == programs.compiled == 2


def test_another_engine_of_the_same_shapes_compiles_nothing(programs):
    step = adds(1)
    programs.compile(step, (3,), jnp.arange(3.0))
    other = Programs(CONFIG, jnp.ones(3), None)
    assert other.call(step, (3,), jnp.arange(3.0)).tolist() == [2.0, 3.0, 4.0]
    assert (other.compiled, programs.compiled) == (0, 1)
