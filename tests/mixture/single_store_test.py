"""A dose of one store is what it was before overlays had streams: the goldens were computed by the code of that time.

`python -m tests.mixture.single_store_test` writes them anew: only a deliberate break with finished studies excuses it.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from alignpre_jax.foundation import digest
from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, ledger, parse_shares, where

GOLDENS = Path(__file__).parent / "goldens" / "single_store.json"
ROWS = {"web/plain": 900, "web/ai": 150, "aligned": 70, "misaligned": 40}
HUGE = {"web/plain": 1 << 39, "web/ai": 1 << 38, "aligned": 1 << 38, "misaligned": 40}
OVERLAYS = {
    "nothing": (),
    "dose": (Replace("aligned", "0.05", 7),),
    "zero dose": (Replace("aligned", 0, 7),),
    "window": (Replace("misaligned", "1/30", 7, "0.5", "0.75"),),
    "everything": (Replace("aligned", 1, 3),),
    "a window and zeros": (Replace("aligned", "0.1", 1, schedule="[0.25,0.5) 3"),),
    "schedule": (Replace("aligned", "0.1", 1, schedule="[0,0.1) 2; [0.3,0.6) 1->4; [0.9,1) 1"),),
    "ramp": (Replace("web/ai", "0.2", 4, schedule="0->1"),),
    "same slots": (Replace("aligned", "0.05", 7), Replace("misaligned", "0.02", 7)),
    "filter": (Remove("web/ai", "web/plain", 2, "0.2"), Replace("aligned", "0.1", 7, schedule="1->2")),
    "filter after dose": (Replace("web/ai", "0.1", 7, 0, "1/3"), Remove("web/ai", "aligned", 2)),
}


def make_plan(overlays, slots, order):
    rows = HUGE if slots > 1 << 30 else ROWS
    return Plan(BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), rows, slots, 5, 1e12, order), overlays, rows)


def facts(overlays):
    """Everything about the plans of one arm that a change of the code might move."""
    found = []
    for slots, order in ((1000, "fresh"), (777, "same"), (3 * 10**11, "fresh")):
        plan = make_plan(overlays, slots, order)
        some = np.arange(slots) if slots < 10**4 else np.random.default_rng(0).integers(0, slots, 3000)
        there = hashlib.sha256(b"".join(column.astype(np.int64).tobytes() for column in plan.lookup(some)))
        fact = {"digest": plan.digest(), "lookup": there.hexdigest()[:16]}
        fact["described"] = json.loads(json.dumps([overlay.describe(plan.base) for overlay in overlays]))
        fact["used"] = list(plan.used_stores)
        if slots < 10**4:
            book = ledger(plan, 16).to_json()
            fact["ledger"], fact["overlays"] = digest(book), book["overlays"]
            fact["where"] = digest([where(plan, "aligned", row).tolist() for row in (0, 33)])
        found.append(fact)
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_dose_of_one_store_is_what_it_always_was(name):
    assert json.loads(json.dumps(facts(OVERLAYS[name]))) == json.loads(GOLDENS.read_text())[name]


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(facts(overlays))}" for name, overlays in OVERLAYS.items()]
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
