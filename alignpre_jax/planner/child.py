"""`python -m alignpre_jax.planner.child FOLDER`: compiles what FOLDER/request.json asks for, into FOLDER.

The compiler holds its process for minutes, answers no signal and may take all memory. So it gets a process of its own,
which ends with the one that started it.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import os
import sys
import threading

from etils import epath

from alignpre_jax.foundation import UserError, read_json, write_bytes, write_json
from alignpre_jax.planner.compile import Compiled
from alignpre_jax.planner.topology import parse_topology


def main(folder: str) -> None:
    """Reads request.json in a folder, and writes result.json there, and program.hlo.gz if the program fits."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = epath.Path(folder)
    request = read_json(place / "request.json")
    module, _, function = request["entry"].partition(":")
    assert module.startswith("alignpre_jax."), module
    topology = parse_topology(request["topology"], request["slices"])
    try:
        result = getattr(importlib.import_module(module), function)(request["arguments"], topology)
    except UserError as error:
        write_json(place / "result.json", {"mistake": {"what": error.what, "where": error.where, "fix": error.fix}})
        return
    if isinstance(result, Compiled):
        write_bytes(place / "program.hlo.gz", gzip.compress(result.text.encode(), mtime=0))
        figures = {
            "memory": dataclasses.asdict(result.memory),
            "tensors": [dataclasses.asdict(tensor) for tensor in result.tensors],
            "groups": result.groups,
        }
        write_json(place / "result.json", figures)
    else:
        write_json(place / "result.json", {"too_large": dataclasses.asdict(result)})


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent's end of the pipe closes, however it ends; holds no lock of Python's
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
