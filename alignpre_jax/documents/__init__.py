"""Documents are read, harvested or composed; AI discourse in them is detected, and duplicates are removed."""

from alignpre_jax.documents.detect import assign_strata
from alignpre_jax.documents.discourse import Excerpt, Hit, Hits, Rule, discourse_hits, excerpts, scan, term_lists
from alignpre_jax.documents.document import Body, BodyKind, Chat, Document, Message, Pair, Prompt, ScoredSpan
from alignpre_jax.documents.duplicates import deduplicate
from alignpre_jax.documents.harvest import harvest_packages
from alignpre_jax.documents.quarantine import Case, Quarantine
from alignpre_jax.documents.readers import (
    InputFile,
    ReadConfig,
    RecordKeys,
    drop_taken_ids,
    list_files,
    read_file,
    read_inputs,
)
from alignpre_jax.documents.synthesis import (
    ComposerGenerator,
    EndpointGenerator,
    SamplerGenerator,
    Situation,
    SynthesisConfig,
    SynthesisReport,
    read_situations,
    synthesize,
)
from alignpre_jax.documents.transforms import Persona, Strip, Transform, transform_source
from alignpre_jax.documents.world import Item, WorldConfig, compose_documents, compose_items

__all__ = [
    "Body",
    "BodyKind",
    "Case",
    "Chat",
    "ComposerGenerator",
    "Document",
    "EndpointGenerator",
    "Excerpt",
    "Hit",
    "Hits",
    "InputFile",
    "Item",
    "Message",
    "Pair",
    "Persona",
    "Prompt",
    "Quarantine",
    "ReadConfig",
    "RecordKeys",
    "Rule",
    "SamplerGenerator",
    "ScoredSpan",
    "Situation",
    "Strip",
    "SynthesisConfig",
    "SynthesisReport",
    "Transform",
    "WorldConfig",
    "assign_strata",
    "compose_documents",
    "compose_items",
    "deduplicate",
    "discourse_hits",
    "drop_taken_ids",
    "excerpts",
    "harvest_packages",
    "list_files",
    "read_file",
    "read_inputs",
    "read_situations",
    "scan",
    "synthesize",
    "term_lists",
    "transform_source",
]
