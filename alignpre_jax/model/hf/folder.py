"""This module reads a Hugging Face model folder: config.json and safetensors, one file or several with an index."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignpre_jax.foundation import PathLike, UserError
from alignpre_jax.model.hf.config import Architecture, read_config
from alignpre_jax.model.hf.names import FAMILIES

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Buffers that old versions of transformers saved, and that are computed here instead of read.
_BUFFERS = re.compile(r"(\.rotary_emb\.inv_freq|\.attention\.(masked_)?bias)$")
_FLOATS = ("F32", "F16", "BF16")
# transformers 5 writes GPT-NeoX's output layer under the name that the other families have.
_ALIASES = {"gpt_neox": {"lm_head.weight": "embed_out.weight"}}


class Folder:
    """A `Folder` is the `Weights` of a Hugging Face folder, whose files are only ever read.

    Raises:
      UserError: a file is missing, damaged, or not what it should be; pickled checkpoints are refused.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        _require_extra()
        self.architecture: Architecture = read_config(self._json(CONFIG), where=str(self.path / CONFIG))
        aliases = _ALIASES.get(self.architecture.family, {})
        self._files: dict[str, tuple[Path, str]] = {}  # name -> file, name in the file
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file, names in self._index().items():
            with _opened(self.path / file) as opened:
                inside = set(opened.keys())
                for name in sorted(inside if names is None else names):
                    if name not in inside:
                        raise UserError(
                            f"tensor {name} is not in the file that the index names for it",
                            where=str(self.path / file),
                            fix="fetch the file again",
                        )
                    entry = opened.get_slice(name)
                    if entry.get_dtype() not in _FLOATS and not _BUFFERS.search(name):
                        raise UserError(
                            f"tensor {name} is of dtype {entry.get_dtype()}; supported are {', '.join(_FLOATS)}",
                            where=str(self.path / file),
                            fix="take the model's original release",
                        )
                    ours = aliases.get(name, name)
                    self._files[ours] = self.path / file, name
                    self.shapes[ours] = tuple(entry.get_shape())

    def tensor(self, name: str) -> np.ndarray:
        """Returns one tensor as it is stored."""
        file, inside = self._files[name]
        with _opened(file) as opened:
            return opened.get_tensor(inside)

    def file_of(self, name: str) -> str:
        """Returns the file that holds a tensor, or the folder if no file holds it."""
        return str(self._files[name][0]) if name in self._files else str(self.path)

    def extra_is_harmless(self, name: str) -> bool:
        """Returns True for buffers, and for the output layer of a model that says it has none of its own."""
        output = FAMILIES[self.architecture.family]["unembedding"].name
        return bool(_BUFFERS.search(name)) or (name == output and self.architecture.config.tied_embeddings)

    def _index(self) -> Mapping[str, list[str] | None]:
        """Returns, for each file, the tensors to take from it; None stands for all of them."""
        if (self.path / INDEX).exists():
            index = self._json(INDEX).get("weight_map")
            if not isinstance(index, dict) or not index:
                raise UserError("no weight_map", where=str(self.path / INDEX), fix="fetch the file again")
            files: dict[str, list[str] | None] = {}
            for name, file in index.items():
                if not isinstance(file, str) or file != Path(file).name:
                    raise UserError(
                        f"{file!r} is not the name of a file in this folder",
                        where=f"{self.path / INDEX}: {name}",
                        fix="fetch the file again",
                    )
                names = files.setdefault(file, [])
                assert names is not None
                names.append(name)
            return files
        if (self.path / SINGLE).exists():
            return {SINGLE: None}
        pickled = sorted(p.name for p in self.path.glob("*.bin")) + sorted(p.name for p in self.path.glob("*.pt*"))
        if pickled:
            raise UserError(
                f"the tensors are pickled ({pickled[0]}); unpickling runs whatever code a file contains",
                where=str(self.path),
                fix="convert them to safetensors where you trust them, e.g. with transformers' save_pretrained",
            )
        raise UserError(
            f"neither {SINGLE} nor {INDEX} is here", where=str(self.path), fix="fetch the whole model folder"
        )

    def _json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            values = json.loads(file.read_bytes())
        except FileNotFoundError:
            raise UserError(f"no {name} in the folder", where=str(self.path), fix="give a model's folder") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where=str(file), fix="fetch the file again") from None
        if not isinstance(values, dict):
            raise UserError("not a JSON object", where=str(file), fix="fetch the file again")
        return values


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            yield opened
    except FileNotFoundError:
        raise UserError("the file is missing", where=str(file), fix="fetch the whole model again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"the file is damaged: {error}", where=str(file), fix="fetch the file again") from None


def _require_extra() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        fix = "pip install 'alignpre_jax[hf]'"
        raise UserError("the package safetensors is needed for model folders", where="import", fix=fix) from None
