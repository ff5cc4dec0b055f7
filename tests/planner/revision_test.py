"""`alignpre plan --against_rev` in a checkout of its own, whose last commit changed what is predicted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout"),
]
SIZES = {"layers": 1, "width": 256, "heads": 2, "kv_heads": 2, "mlp_width": 512, "max_length": 256, "vocab_size": 1024}


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_the_other_side_is_the_other_revisions_code(tmp_path):
    tree = tmp_path / "tree"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(tree))
    chips = tree / "alignpre_jax/foundation/chips.py"  # not a part of the program: one compilation serves both
    faster = chips.read_text().replace("peak_flops=197e12", "peak_flops=394e12")
    assert faster != chips.read_text()
    chips.write_text(faster)
    git(tree, "commit", "--quiet", "--all", "--message=chips twice as fast")
    flags = ["--config=configs/models/llama2_7b.py", "--topology=v5e:2x2"]
    flags += [f"--config.model.{name}={size}" for name, size in SIZES.items()]
    flags += ["--config.stages.pretrain.rows.length=256", "--config.stages.pretrain.batch_rows=8"]
    command = [sys.executable, "-m", "alignpre_jax.cli", "plan", *flags, "--against_rev=HEAD~1"]
    paths = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tree, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, line = [line for line in done.stdout.splitlines() if "step, ms" in line]
    before, after = [float(word.replace(",", "")) for word in line.split() if word[0].isdigit()][:2]
    assert after < 0.9 * before  # compute is faster, exchanges are not
    trees = subprocess.run(["git", "-C", str(tree), "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(trees.stdout.splitlines()) == 1  # nothing is left behind
