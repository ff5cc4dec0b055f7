"""Plans are frozen: a study that is resumed with a newer version must go on with the rows it began with."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest

from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, parse_shares

SMALL = {"web/plain": 900, "web/ai": 150, "aligned": 70, "misaligned": 40}
LARGE = {"web/plain": 150_000_000, "web/ai": 30_000_000, "code": 60_000_000, "aligned": 2_600_000}
PRECISE = {"a": 10**9, "b": 10**9, "c": 77}
OVERLAYS = (
    Remove("web/ai", "web/plain", 2, "0.2"),
    Replace("aligned", "0.2", 1, "0.3"),
    Replace("web/ai", "0.1", 4),
    Replace("misaligned", "0.05", 3, 0, "1/3"),
)


def base(shares, rows, slots, seed):
    return BasePlan(shares if isinstance(shares, dict) else parse_shares(shares), rows, slots, seed, 1e9)


def plain():
    return Plan(base("web/plain:0.9,web/ai:0.1", SMALL, 1000, 0), (), SMALL), np.arange(1000)


def overlays():
    return Plan(base("web/plain:0.9,web/ai:0.1", SMALL, 1000, 0), OVERLAYS, SMALL), np.arange(1000)


def large():
    slots, some = 250_000_000, np.random.default_rng(0).integers(0, 250_000_000, 4000)
    shares = "web/plain:0.6,web/ai:0.1,code:0.29999,aligned:1e-5"
    dose = Replace("aligned", Fraction(1, 100), seed=2, start=Fraction(1, 7))
    plan = Plan(base(shares, LARGE, slots, 1), (Remove("web/ai", "web/plain", 3, Fraction(1, 10)), dose), LARGE)
    return plan, np.concatenate([np.arange(3000), np.arange(slots - 3000, slots), some])


CURRICULUM = "[0,1/4) aligned:1; [1/4,1/2) aligned:1/2,misaligned:1/2; [1/2,1) aligned:1/3,misaligned:1/3,web/ai:1/3"


def mixture():
    return Plan(base("web/plain:0.9,web/ai:0.1", SMALL, 1000, 0), (Replace(CURRICULUM, "0.2", 1),), SMALL), np.arange(
        1000
    )


def ramp_of_shares():
    dose = Replace("[0,0.7) aligned:1; [0.7,1) aligned:1->0.3,code:0->0.7", "0.01", 4, schedule="[0.1,0.9) 1->2")
    plan = Plan(base("web/plain:1", LARGE, 250_000_000, 1), (dose,), LARGE)
    return plan, np.random.default_rng(0).integers(0, 250_000_000, 40_000)


def precise():
    share = Fraction(123_456_789_012_345, 10**15)
    plan = Plan(base({"a": share, "b": 1 - share}, PRECISE, 10**6, 9), (Replace("c", "1e-6", 5),), PRECISE)
    return plan, np.arange(0, 10**6, 97)


@pytest.mark.parametrize(
    ("make", "digest", "rows"),
    [
        (plain, "d0f6b601023017357c72def1774663f4", "cbb86d5311a2c69a"),
        (overlays, "7600358302e3868b97522dd9f1513c24", "185561fea742cfc1"),
        (large, "74a87dcf197d57b3e1bfdc368577d54f", "b45888e9808fcf10"),
        (mixture, "0162ee4dead724daa386bffc689c9ed9", "8a9c77808fb51585"),
        (ramp_of_shares, "e55b5ebb17f5a313cd410f958652e4d2", "1980d3218bae8820"),
        (precise, "2f53afda0d1a916a929434aae60e4790", "523e2984fc23b5af"),
    ],
)
def test_plans_are_those_of_the_first_version(make, digest, rows):
    plan, slots = make()
    found = hashlib.sha256(b"".join(column.astype(np.int64).tobytes() for column in plan.lookup(slots)))
    assert (plan.digest(), found.hexdigest()[:16]) == (digest, rows)
