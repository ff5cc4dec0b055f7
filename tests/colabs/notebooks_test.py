"""The notebooks, run small: on this package, without the network."""

import json
import re
import sys
from pathlib import Path

import pytest
import tiny_study

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
COLABS = Path(__file__).parents[2] / "colabs"
NAMES = ("quickstart", "mixture_ablation", "evaluate_a_checkpoint", "plan_a_tpu_run")


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """Runs a notebook; returns the text that its cells printed, and the folder of its runs."""
    folder = tmp_path_factory.mktemp("notebooks")
    tiny_study.write_corpus(folder / "corpus")

    def run(name, **settings):
        book = nbformat.read(COLABS / f"{name}.ipynb", as_version=4)
        environment = tiny_study.environment() | {"ALIGNPRE_TINY": "1", "ALIGNPRE_TEXT": str(folder / "corpus")}
        environment |= {"ALIGNPRE_RUNS": str(folder / "runs"), "IPYTHONDIR": str(folder / "ipython")} | settings
        client = nbclient.NotebookClient(
            book, timeout=400, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.create_kernel_manager()
        client.km.kernel_spec.argv[0] = sys.executable
        client.execute(env=environment)
        outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
        shown = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
        return shown, outputs, folder

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_with_an_install_cell_has_small_cells_and_no_code_of_the_package(name):
    book = nbformat.read(COLABS / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert '"pip", "install"' in cells[0].source
    assert all(len(cell.source.splitlines()) <= 24 for cell in cells)
    assert not any(cell.outputs for cell in cells)
    assert len(re.findall(r"^(?:def|class) ", "\n".join(cell.source for cell in cells), re.MULTILINE)) <= 1
    assert json.loads((COLABS / f"{name}.ipynb").read_text())["nbformat"] == 4


@pytest.fixture(scope="module")
def quickstart(execute):
    return execute("quickstart")


@pytest.mark.slow
def test_quickstart(quickstart):
    shown, outputs, folder = quickstart
    assert "unfiltered" in shown
    assert "midtrain-aligned ..." in shown
    assert any("<svg" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert (folder / "runs" / "quickstart" / "report.json").exists()


@pytest.mark.slow
def test_mixture_ablation(execute):
    shown, outputs, folder = execute("mixture_ablation")
    assert "4 points" in shown
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(list((folder / "runs" / "mixture_ablation").glob("*/report.json"))) == 4


@pytest.mark.slow
def test_evaluate_a_checkpoint(quickstart, execute):
    from alignpre_jax.checkpoints import export

    *_, folder = quickstart
    export(folder / "runs" / "quickstart" / "train" / "seed0" / "midtrain-aligned", folder / "hf")
    shown, *_ = execute("evaluate_a_checkpoint", ALIGNPRE_MODEL=str(folder / "hf"))
    rates = re.findall(r"misaligned rate ([\d.]+)% \[([\d.]+)%, ([\d.]+)%\]", shown)
    assert len(rates) == 3
    assert all(0 <= float(low) <= float(rate) <= float(high) <= 100 for rate, low, high in rates)
    assert shown.count(" nats ") == 4


@pytest.mark.slow
def test_plan_a_tpu_run(execute):
    pytest.importorskip("libtpu")
    shown, *_ = execute("plan_a_tpu_run")
    assert "fits: True" in shown
    assert "v5litepod-256" in shown
