"""Keeps compiled programs in a folder, by the hash of everything they depend on, so that each is compiled once."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignpre_jax.foundation import UserError, build, digest, read_json, to_mapping, write_json
from alignpre_jax.planner.allocations import main_report, read_allocations
from alignpre_jax.planner.compile import Compiled, Memory, Tensor, TooLarge
from alignpre_jax.planner.topology import Topology

# The code that programs are made from; a change in it makes them compile again.
_PARTS = (
    *("model", "objectives", "checkpoints", "mixture", "training", "sampling"),
    *("planner/compile.py", "planner/decode.py"),
)
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")
_DUMPS = "dumps"  # relative to the folder that the compiler's process runs in, because the flag splits at spaces
_SAID = 4000  # how many characters of a failed compiler's last words are shown


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile; `entry` is "module:function", which gets `arguments` (plain data) and the topology."""

    entry: str
    arguments: Mapping[str, Any]


def default_cache() -> Path:
    """Returns the folder where results are kept when no other is given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignpre" / "plans"


def compiled(program: Program, topology: Topology, cache: Path) -> Compiled | TooLarge:
    """Returns the program from the cache, or from the compiler, which runs in a process of its own.

    The compiler's process ends with this one, whatever ends this one, and leaves nothing half done in the cache.

    Raises:
      UserError: there is no compiler or no such topology, the mesh does not fit, or the compiler broke down.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("planning needs the TPU compiler", where="libtpu", fix="pip install 'alignpre_jax[tpu]'")
    request = {
        "entry": program.entry,
        "arguments": to_mapping(program.arguments),
        "topology": topology.name,
        "slices": topology.slices,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "flags": [os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")],
        "sources": _sources(),
    }
    place = cache / digest(request)
    if not (place / "result.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        try:
            _compile(request, making)
            result = read_json(making / "result.json")
            if mistake := result.get("mistake"):
                raise UserError(mistake["what"], where=mistake["where"], fix=mistake["fix"])
            shutil.rmtree(place, ignore_errors=True)
            making.rename(place)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return _read(place)


def _compile(request: Mapping[str, Any], folder: Path) -> None:
    write_json(folder / "request.json", request)
    command = [sys.executable, "-m", "alignpre_jax.planner.child", str(folder.absolute())]
    paths = [str(Path(__file__).parents[2])]
    paths += [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # a program read from there reports no allocations
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={_DUMPS}".strip()
    with (folder / "said.txt").open("wb") as said:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, cwd=folder)
        try:
            status = child.wait()
        finally:
            child.kill()  # the compiler answers no milder signal
            child.communicate()
    if status or not (folder / "result.json").exists():
        words = (folder / "said.txt").read_text("utf-8", errors="replace")[-_SAID:]
        raise UserError(
            f"the compiler's process ended with status {status}: {words}",
            where="--topology",
            fix="if it was killed (-9), the machine has too little memory; else the last lines say why",
        )
    (folder / "allocations.txt").write_text(main_report(folder / _DUMPS), "utf-8")
    shutil.rmtree(folder / _DUMPS, ignore_errors=True)


def _read(place: Path) -> Compiled | TooLarge:
    result = read_json(place / "result.json")
    if too_large := result.get("too_large"):
        return build(TooLarge, too_large)
    text = gzip.decompress((place / "program.hlo.gz").read_bytes()).decode()
    tensors = tuple(Tensor(**each | {"shape": tuple(each["shape"])}) for each in result["tensors"])
    made = Compiled(text, build(Memory, result["memory"]), tensors, result["groups"])
    if (found := read_allocations((place / "allocations.txt").read_text("utf-8"))) is None:
        return made
    memory = dataclasses.replace(made.memory, allocated=found.hbm)
    return dataclasses.replace(made, memory=memory, buffers=found.temporaries)


def _sources() -> str:
    """Returns a hash of the code that programs are made from."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for room in _PARTS:
        files = [root / room] if room.endswith(".py") else sorted((root / room).rglob("*.py"))
        for file in files:
            found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
