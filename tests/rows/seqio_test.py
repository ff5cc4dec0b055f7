import io
import os
import subprocess
import sys

import numpy as np
import pytest

from alignpre_jax.foundation import digest
from alignpre_jax.rows import load_tokenizer, open_rows

pytest.importorskip("seqio")
pytestmark = pytest.mark.slow  # TensorFlow takes ten seconds to start
sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [f"Report {i} says that the harbour was quiet and the clerk went home." for i in range(50)]
MODULE = """
    import functools, os
    import seqio, tensorflow as tf

    vocabulary = seqio.SentencePieceVocabulary(os.path.join(os.path.dirname(__file__), "spm.model"))
    texts = [f"Report {i} says that the harbour was quiet and the clerk went home." for i in range(50)]

    def dataset(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices({"targets": texts})

    for name in ("reports", "others"):
        seqio.TaskRegistry.add(
            name,
            source=seqio.FunctionDataSource(dataset, splits=["train"]),
            preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
        )
    seqio.MixtureRegistry.add("both", [("reports", 3), ("others", 1)])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=80, minloglevel=2, hard_vocab_limit=False
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    (folder / "my_tasks.py").write_text("\n".join(line.removeprefix("    ") for line in MODULE.splitlines()))
    return folder


def drain(project, *flags):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), *sys.path])}
    command = [sys.executable, "-m", "alignpre_jax.rows.seqio", "--module=my_tasks", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_task_becomes_rows_of_its_own_tokens(project, tmp_path):
    flags = ["--task=reports", "--length=32", f"--root={tmp_path}", f"--vocabulary={tmp_path}/tokenizer.model"]
    done = drain(project, *flags)
    assert done.returncode == 0, done.stderr
    store = open_rows(tmp_path / "reports")
    assert store.header.tokenizer_digest == digest((project / "spm.model").read_bytes())
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model")
    assert tokenizer.digest == store.header.tokenizer_digest
    assert store.header.documents == 50
    # seqio's own encoding puts a space before each text, which our decoding shows
    inner = sentencepiece.SentencePieceProcessor(model_file=str(project / "spm.model"))
    stream = [token for text in TEXTS for token in [inner.eos_id(), *inner.encode(text)]]
    assert store.read(np.arange(len(store))).tokens.ravel().tolist() == stream[: store.header.tokens]
    assert store.document(3)["id"] == "reports/train/3"
    assert store.document(3)["bytes"] == len(TEXTS[3]) + 1


def test_texts_and_mixtures(project, tmp_path):
    flags = ["--length=32", f"--root={tmp_path}", "--packing=best_fit"]
    done = drain(project, *flags, "--task=both", "--feature=targets_pretokenized", "--tokenizer=byte", "--stratum=a/b")
    assert done.returncode == 0, done.stderr
    store = open_rows(tmp_path / "a/b")
    assert store.header.packing == "best_fit"
    assert {entry["bytes"] for entry in store.documents()} == {len(text) for text in TEXTS}


def test_mistakes_are_told(project, tmp_path):
    for flags, message in (
        (["--task=report"], "did you mean 'reports'"),
        (["--task=reports", "--split=test"], "no split 'test'"),
        (["--task=reports", "--feature=inputs"], "no feature 'inputs'"),
    ):
        done = drain(project, *flags, "--length=32", f"--root={tmp_path}")
        assert done.returncode == 2
        assert message in done.stderr
