"""The order of the house: imports point down the list of floors, and no two modules import each other.

Imports are read from the source, also those inside functions and those under TYPE_CHECKING.
"""

import ast
import functools
import graphlib
import importlib
import json
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "alignpre_jax"
FLOORS = (  # from the ground; rooms of one floor do not import each other
    ("foundation",),
    ("model", "endpoints"),
    ("objectives", "documents"),
    ("rows",),
    ("checkpoints", "mixture"),
    ("sampling", "training"),
    ("evals", "probes", "planner"),
    ("rollouts",),
    ("study",),
    ("launch", "report"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ACCELERATED = {"jax", "jaxlib", "flax", "optax", "orbax"}  # what the report is made without


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(name: str) -> tuple[tuple[str, int], ...]:
    """What a module imports, each with its line; `from a import b` is the module a.b where there is one, else a."""
    found = []
    for node in ast.walk(ast.parse(modules()[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{modules()[name]}:{node.lineno}: imports are written out in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if whole in modules() else node.module, node.lineno))
    return tuple(found)


def room(name: str) -> str:
    return name.split(".")[1] if name.startswith(f"{PACKAGE}.") else ""


def test_every_room_has_a_floor():
    assert {room(name) for name in modules()} - {""} <= set(FLOOR)
    assert [name for name in modules() if not room(name)] == [PACKAGE]
    assert imports(PACKAGE) == ()


def test_imports_point_down():
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line}: {room(name)} imports {target}"
        for name in modules()
        for target, line in imports(name)
        if room(target) not in ("", room(name)) and FLOOR[room(target)] >= FLOOR[room(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other():
    graph = {name: {target for target, _ in imports(name) if target in modules()} for name in modules()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_report_knows_no_accelerator():
    """Of its own imports; the study, whose config and records it reads, trains and so needs one."""
    wrong = [
        f"{name}:{line}: {target}"
        for name in modules()
        if room(name) == "report"
        for target, line in imports(name)
        if target.split(".")[0] in ACCELERATED
    ]
    assert not wrong, "\n".join(wrong)


def written() -> dict[str, str]:
    """All text in which people are told of modules and files."""
    places = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "setup.py"]
    for folder, kinds in {"docs": "md", "gcp": "*", "colabs": "ipynb", "tools": "py", PACKAGE: "py"}.items():
        places += sorted((ROOT / folder).rglob(f"*.{kinds}"))
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in places}


def test_files_and_modules_that_are_named_are_there():
    wrong = []
    for place, text in written().items():
        for path in re.findall(rf"(?<![\w/.-]){PACKAGE}/[\w/]+(?:\.\w+)?", text):
            wrong += [f"{place}: {path}"] * (not (ROOT / path).exists() and path != f"{PACKAGE}/scenarios")
        for name in re.findall(rf'(?:-m[ ",]+|["= ])({PACKAGE}(?:\.\w+)+)(?=[ :"\n])', text):
            *_, last = name.split(".")
            wrong += [f"{place}: {name}"] * (name not in modules() and name.removesuffix(f".{last}") not in modules())
    assert not wrong, "\n".join(wrong)


def snippets() -> list[tuple[str, str]]:
    """The Python that notebooks and pages show."""
    found = []
    for path in sorted((ROOT / "colabs").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()[:1] not in ("!", "%")]
            found += [(path.name, "\n".join(lines))] * (cell["cell_type"] == "code")
    for place, text in written().items():
        if place.endswith(".md"):
            found += [(place, textwrap.dedent(each)) for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return found


def test_notebooks_and_pages_import_what_is_there():
    wrong = []
    for place, source in snippets():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE):
                for name in [alias.name for alias in node.names]:
                    there = f"{node.module}.{name}" in modules() or hasattr(importlib.import_module(node.module), name)
                    wrong += [f"{place}: {node.module}.{name}"] * (not there)
    assert not wrong, "\n".join(wrong)
