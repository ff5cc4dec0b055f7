"""This package reads models of other programs (Hugging Face folders, GGUF files) and writes Hugging Face folders."""

from alignpre_jax.model.hf.config import Architecture, family_of, read_config, write_config
from alignpre_jax.model.hf.load import COMPANIONS, Imported, import_model, is_model, open_weights
from alignpre_jax.model.hf.names import from_hf, to_hf
from alignpre_jax.model.hf.save import export_model

__all__ = [
    "COMPANIONS",
    "Architecture",
    "Imported",
    "export_model",
    "family_of",
    "from_hf",
    "import_model",
    "is_model",
    "open_weights",
    "read_config",
    "to_hf",
    "write_config",
]
