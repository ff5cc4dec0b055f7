"""A seqio Task or Mixture to rows, in a process of its own: TensorFlow and JAX need not meet.

    pip install 'alignpre_jax[seqio]'      (3 GB with TensorFlow: an environment of its own serves best)
    python -m alignpre_jax.rows.seqio --module my_project.tasks --task my_task --length 2048 --root rows \\
        --vocabulary rows/tokenizer.model

The module that `--module` names is imported to register the task; this runs your own code. The examples' "targets",
tokenized by the task, become the documents of a stratum, in the order in which seqio gives them without shuffling;
`--seed` is the seed of a mixture's draws. An end-of-sequence token at an example's end is left out, because the same
token stands before each document in rows. The rows' tokenizer is the feature's SentencePiece vocabulary, whose model
`--vocabulary` keeps for training.

With `--tokenizer`, the texts of `--feature` (such as "targets_pretokenized") are drained instead and tokenized here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from alignpre_jax.foundation import Event, PathLike, Report, UserError, silent, suggest, write_bytes
from alignpre_jax.rows.blocks import Recipe
from alignpre_jax.rows.build import Line, line_of, make_stores
from alignpre_jax.rows.store import RowStore
from alignpre_jax.rows.tokenizer import Tokenizer, load_tokenizer, parse_tokenizer


def drain(
    task: str,
    length: int,
    root: PathLike,
    report: Report = silent,
    *,
    split: str = "train",
    feature: str = "targets",
    tokenizer: Tokenizer | None = None,
    stratum: str = "",
    examples: int = 0,
    seed: int = 0,
    packing: str = "concat",
    workers: int = 0,
    vocabulary: PathLike = "",
) -> RowStore:
    """Builds rows from one pass over a registered Task or Mixture; see `build_rows`.

    Args:
      task: the name of a Task or Mixture that is registered.
      length: tokens per row.
      root: a local folder; the store is `root`/STRATUM.
      report: told the number of examples and tokens after each block.
      split: the split to drain.
      feature: the feature of the examples to drain: token ids, or text if there is a `tokenizer`.
      tokenizer: turns texts into tokens; None takes the feature's ids as they are.
      stratum: the rows' stratum, by default the task's name.
      examples: how many examples to take at most; 0 takes all of one epoch.
      seed: the seed of a mixture's draws.
      packing: "concat" or "best_fit".
      workers: the number of processes; 0 chooses it.
      vocabulary: where to keep the feature's SentencePiece model, if anywhere.

    Raises:
      UserError: seqio is not installed or has no such task or split, the task has no such feature, the feature's
        vocabulary is not a SentencePiece model, or one of the reasons of `build_rows`.
    """
    provider = _provider(task)
    if split not in provider.splits:
        fix = suggest(split, provider.splits)
        raise UserError(f"{task!r} has no split {split!r}", where="split", fix=fix)
    if tokenizer is None:
        data = _sentencepiece_model(provider, feature)
        tokenizer = parse_tokenizer(data, where=f"the vocabulary of {task}")
        if vocabulary:
            write_bytes(vocabulary, data)
        kind = "tokens"
    else:
        kind = "text"
    stratum = stratum or task
    options: dict[str, Any] = {"sequence_length": None, "split": split, "shuffle": False, "seed": seed, "num_epochs": 1}
    if hasattr(provider, "tasks"):  # a mixture, which otherwise keeps only the features that become tokens
        options["passthrough_features"] = [feature]
    dataset = provider.get_dataset(**options)
    dataset = dataset.take(examples) if examples else dataset
    lines = _lines(dataset.as_numpy_iterator(), f"{task}/{split}", stratum, feature, kind, tokenizer)
    return make_stores(lines, Recipe(kind, packing, length), tokenizer, root, report, workers=workers)[stratum]


def _provider(task: str) -> Any:
    try:
        import seqio
    except ModuleNotFoundError:
        fix = "pip install 'alignpre_jax[seqio]', best into an environment of its own"
        raise UserError("seqio is not installed", where="alignpre_jax.rows.seqio", fix=fix) from None
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if task not in known:
        fix = f"name the module that registers it; {suggest(task, known)}"
        raise UserError(f"no Task or Mixture is called {task!r}", where="task", fix=fix)
    return seqio.get_mixture_or_task(task)


def _sentencepiece_model(provider: Any, feature: str) -> bytes:
    features = provider.output_features
    if feature not in features:
        fix = f"{suggest(feature, features)}; for texts, give a tokenizer"
        raise UserError(f"the task has no feature {feature!r} of tokens", where="feature", fix=fix)
    model = getattr(features[feature].vocabulary, "sp_model", None)
    if not isinstance(model, bytes):
        what = f"the vocabulary of {feature!r} is a {type(features[feature].vocabulary).__name__}, not SentencePiece"
        raise UserError(what, where="feature", fix="drain the texts, with a tokenizer")
    return model


def _lines(
    examples: Iterator[dict[str, Any]], name: str, stratum: str, feature: str, kind: str, tokenizer: Tokenizer
) -> Iterator[Line]:
    for number, example in enumerate(examples):
        if feature not in example:
            fix = suggest(feature, example)
            raise UserError(f"an example has no feature {feature!r}", where=f"{name}/{number}", fix=fix)
        value = example[feature]
        facts = {"id": f"{name}/{number}", "source": stratum.partition("/")[0], "score": 0.0, "labels": {}}
        if kind == "text":
            if not isinstance(value, bytes):
                what = f"the feature {feature!r} is no text but {type(value).__name__}"
                raise UserError(what, where=f"{name}/{number}", fix="leave the tokenizer out to drain token ids")
            yield Line(stratum, kind, line_of({**facts, "text": value.decode(errors="replace")}))
            continue
        ids = value.tolist()
        if ids and ids[-1] == tokenizer.eot_id:
            ids.pop()
        outside = [token for token in ids if not 0 <= token < tokenizer.vocab_size]
        if outside:
            fix = "correct the task's preprocessors"
            raise UserError(f"{outside[0]} is no token of the vocabulary", where=f"{name}/{number}", fix=fix)
        yield Line(stratum, kind, line_of({**facts, "tokens": ids}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a user's mistake is printed, and the program ends with status 2."""
    parser = argparse.ArgumentParser(prog="python -m alignpre_jax.rows.seqio", description=__doc__.split("\n")[0])
    parser.add_argument("--module", action="append", default=[], help="import this, which registers the task")
    parser.add_argument("--task", required=True, help="name of a Task or Mixture")
    parser.add_argument("--split", default="train")
    parser.add_argument("--feature", default="targets", help="what to drain of each example")
    parser.add_argument("--tokenizer", default="", help="drain texts, and tokenize them with this")
    parser.add_argument("--vocabulary", default="", help="where to keep the task's SentencePiece model")
    parser.add_argument("--length", type=int, required=True, help="tokens per row")
    parser.add_argument("--root", required=True, help="folder of row stores")
    parser.add_argument("--stratum", default="", help="name of the rows; by default the task's")
    parser.add_argument("--examples", type=int, default=0, help="at most; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of a mixture's draws")
    parser.add_argument("--packing", default="concat", choices=["concat", "best_fit"])
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    given = vars(parser.parse_args(arguments))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tf.data needs no accelerator, and TensorFlow would take it whole
    try:
        for module in given.pop("module"):
            importlib.import_module(module)
        tokenizer = given.pop("tokenizer")
        given["tokenizer"] = load_tokenizer(tokenizer) if tokenizer else None
        store = drain(given.pop("task"), given.pop("length"), given.pop("root"), _print, **given)
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print(
        f"{len(store):,} rows of {store.header.length} tokens from {store.header.documents:,} examples in {store.path}"
    )


def _print(event: Event) -> None:
    print(f"{event.done:,} examples, {event.figures.get('tokens', 0):,} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
