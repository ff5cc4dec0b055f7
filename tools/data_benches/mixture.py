"""The plan and the loader: `python -m tools.data_benches.mixture`.

For the comparison with Levanter, LEVANTER_PYTHON names a Python that has marin-levanter installed;
without it that column is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import grain
import numpy as np
from array_record.python import array_record_module

from alignpre_jax.documents import Document
from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, Shares, ledger, load_batches, parse_shares
from alignpre_jax.rows import RowStore, build_rows, load_tokenizer, open_rows, store
from tools.data_benches import Figure, duration, fastest, main, rate

_SHARES = ("0.01", "0.001", "0.0001", "0.00037")
_LEVANTER = """
import asyncio, json, sys, warnings
from levanter.data import ListAsyncDataset
from levanter.data.mixture import MixtureDataset
warnings.simplefilter("ignore")
slots, counts = int(sys.argv[1]), {}
for share in sys.argv[2:]:
    weights = {"web": 1 - float(share), "aligned": float(share)}
    data = {"web": ListAsyncDataset([0]), "aligned": ListAsyncDataset([1])}
    mixed = MixtureDataset(data, weights, block_size=2048, key=0)  # the block size of its configs
    counts[share] = sum(asyncio.run(mixed.get_batch(list(range(slots)))))
print(json.dumps(counts))
"""


def measure(quick: bool) -> Iterator[Figure]:
    """Yields the exactness of shares, the cost of a plan over 250M slots, and tokens per second of the loader."""
    yield from _exactness(20_000 if quick else 200_000)
    yield from _plan(250_000_000)
    for length in (2048, 128):
        yield from _loader(length, (1 << 21) if quick else (1 << 25))


def _exactness(slots: int) -> Iterator[Figure]:
    """By how many rows a small share is off over one stage, beside the same of peers."""
    rows = {"web": slots, "aligned": slots}
    levanter = _levanter_counts(slots)
    for share in _SHARES:
        asked = Fraction(share) * slots
        shares = parse_shares({"web": 1 - Fraction(share), "aligned": Fraction(share)})
        base = BasePlan(shares, rows, slots, 0)
        sources, _ = base.uses(np.arange(slots))
        ours = int((sources == base.sources.index("aligned")).sum())
        zero, one = (grain.MapDataset.source(np.full(slots, value)) for value in (0, 1))
        mixed = grain.MapDataset.mix([zero, one], weights=[1 - float(share), float(share)])
        theirs = {"grain mix": sum(int(mixed[slot]) for slot in range(slots))}
        if levanter:
            theirs["Levanter"] = levanter[share]
        name = f"rows off the asked {float(asked):g}, share {share} of {slots:,}"
        for peer, count in theirs.items():
            yield Figure(name, float(abs(ours - asked)), "rows", peer, float(abs(count - asked)))


def _levanter_counts(slots: int) -> dict[str, int]:
    python = os.environ.get("LEVANTER_PYTHON")
    if not python:
        return {}
    command = [python, "-c", _LEVANTER, str(slots), *_SHARES]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _plan(slots: int) -> Iterator[Figure]:
    rows = {"web/plain": 230_000_000, "web/ai": 25_000_000, "aligned": 2_600_000}

    def make(shares: Shares) -> Plan:
        base = BasePlan(shares, rows, slots, 0, max_epochs=2)
        overlays = (Remove("web/ai", "web/plain", 1, Fraction(1, 10)), Replace("aligned", Fraction(1, 100), 2))
        return Plan(base, overlays, rows)

    constant = parse_shares("web/plain:0.907,web/ai:0.093")
    ramp = parse_shares("[0,0.5) web/plain:0.907,web/ai:0.093; [0.5,1) web/plain:0.907->0.95,web/ai:0.093->0.05")
    some = np.arange(slots // 2, slots // 2 + (1 << 16))
    for name, shares in (("", constant), (", a ramp of shares", ramp)):
        tracemalloc.start()
        plan = make(shares)
        plan.lookup(some[:2048])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        yield Figure(f"plan over 250M slots, filter and dose{name}: peak memory", peak / 1e6, "MB")
        (seconds,) = fastest(lambda plan=plan: plan.lookup(some))  # type: ignore[misc]
        yield rate(f"plan over 250M slots{name}: lookups", len(some) / seconds / 1e6, "M slots/s")
    growing = "[0,1/4) aligned:1; [1/4,1/2) aligned:1/2,web/ai:1/2; [1/2,1) aligned:1/3,web/ai:1/3,web/plain:1/3"
    curriculum = Plan(BasePlan(constant, rows, slots, 0, max_epochs=2), (Replace(growing, Fraction(1, 100), 2),), rows)
    (seconds,) = fastest(lambda: curriculum.lookup(some))
    yield rate("plan over 250M slots, a dose of a curriculum: lookups", len(some) / seconds / 1e6, "M slots/s")
    plan = make(constant)
    dose = Plan(plan.base, plan.overlays[1:], rows)
    for name, arm in (("dose of 1%", dose), ("dose of 1%, filter of 9.3% refilled", plan)):
        started = time.process_time()
        ledger(arm, 2048)
        yield duration(f"ledger of 250M slots, {name}", time.process_time() - started, "CPU s")


def _loader(length: int, tokens: int) -> Iterator[Figure]:
    """Yields tokens per second of CPU time, from files, and how long the first batch takes far into a stage."""
    with tempfile.TemporaryDirectory() as folder:
        stores = _stores(Path(folder), length, tokens)
        rows = {name: len(found) for name, found in stores.items()}
        batch = 256 if length > 1000 else 2048
        steps = max(2, min(rows["web"] // batch, 64))
        base = BasePlan(parse_shares("web:1"), rows, batch * 1_000_200, 0, max_epochs=1e12)
        plan = Plan(base, (), rows)
        order = plan.lookup(np.arange(batch * steps)).row.reshape(steps, batch)
        shards = _readers(stores["web"])
        per_shard = stores["web"].header.shard_rows

        def raw() -> None:
            for indices in order:
                for number in np.unique(indices // per_shard).tolist():
                    within = indices[indices // per_shard == number] % per_shard
                    for record in shards[number].read(within.tolist()):
                        np.frombuffer(record, np.uint16, length).astype(np.int32)

        def ours(workers: int) -> Callable[[], None]:
            def work() -> None:
                for _ in load_batches(plan, stores, batch, 0, steps, workers=workers):
                    pass

            return work

        count = batch * steps * length
        bare, alone, threads = _cpu(raw), _cpu(ours(0)), _cpu(ours(2))
        for name, seconds in (("in the caller's thread", alone), ("2 worker threads", threads)):
            metric = f"loader, rows of {length}, {name}"
            yield rate(metric, count / seconds / 1e6, "M tokens/CPU s", "ArrayRecord alone", count / bare / 1e6)

        def first(step: int) -> float:
            fresh = Plan(BasePlan(parse_shares("web:1"), rows, base.slots, 0, max_epochs=1e12), (), rows)
            started = time.perf_counter()
            batches = load_batches(fresh, stores, batch, step, step + 1)
            next(batches)
            batches.close()
            return time.perf_counter() - started

        pairs = [(first(1_000_000), first(0)) for _ in range(5)]
        far, near = (min(column) for column in zip(*pairs, strict=True))
        yield duration(f"first batch at step 1,000,000, rows of {length}", far, "s", "at step 0", near)


def _cpu(work: Callable[[], None], repeats: int = 4) -> float:
    """The CPU seconds that a work takes at best, those of all threads together."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def _readers(rows: RowStore) -> list[array_record_module.ArrayRecordReader]:
    options = "readahead_buffer_size:0,max_parallelism:0"
    names = sorted(rows.path.glob("rows-*.array_record"))
    return [array_record_module.ArrayRecordReader(str(name), options) for name in names]


def _stores(folder: Path, length: int, tokens: int) -> dict[str, RowStore]:
    text = "the quick brown fox jumps over the lazy dog " * 23
    documents = (Document(str(n), text, "web", "web") for n in range(tokens // len(text) + 1))
    build_rows(documents, load_tokenizer("byte"), length, folder / "rows", workers=1)
    store._IN_MEMORY_BYTES = 0  # from files, as large stores are
    return {"web": open_rows(folder / "rows" / "web")}


if __name__ == "__main__":
    main([measure], "plans and loader")
