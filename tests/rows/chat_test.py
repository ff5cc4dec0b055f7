import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from alignpre_jax.foundation import UserError
from alignpre_jax.rows import build_chat_rows, build_pair_rows, build_rows, load_tokenizer, open_rows
from alignpre_jax.rows.template import PLAIN_TEMPLATE, learnt_parts

BYTES = load_tokenizer("byte")
EOT = "<|endoftext|>"
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def conversation(number, turns):
    messages = [{"role": "system", "content": "Be brief."}] if number % 2 else []
    for turn in range(turns):
        messages += [
            {"role": "user", "content": f"question {number}.{turn} {'x' * (number % 7)}"},
            {"role": "assistant", "content": f"answer {number}.{turn}"},
        ]
    return {"id": f"c{number}", "messages": messages, "score": 0.5}


CONVERSATIONS = [conversation(i, 1 + i % 3) for i in range(40)]


def text_of(ids):
    return BYTES.decode(ids)


def test_only_what_the_assistant_says_is_learnt(tmp_path):
    store = build_chat_rows(CONVERSATIONS, BYTES, 300, tmp_path, shard_rows=5)["chat"]
    rows = store.read(np.arange(len(store)))
    learnt = dict.fromkeys([c["id"] for c in CONVERSATIONS], "")
    whole = dict.fromkeys(learnt, "")
    for index in range(len(store)):
        for span in store.spans(index):
            tokens, mask = rows.tokens[index, span.start : span.end], rows.mask[index, span.start : span.end]
            whole[span.document_id] += text_of(tokens)
            learnt[span.document_id] += text_of(tokens[mask])
            assert span.offset == 0
            assert span.score == 0.5
    for c in CONVERSATIONS:
        said = [m["content"] for m in c["messages"] if m["role"] == "assistant"]
        assert learnt[c["id"]] == "".join(f" {answer}{EOT}" for answer in said)
        texts = {"user": "User: {}\n\n", "assistant": "Assistant: {}" + EOT, "system": "System: {}\n\n"}
        assert whole[c["id"]] == EOT + "".join(texts[m["role"]].format(m["content"]) for m in c["messages"])
    assert not rows.mask[rows.segments == 0].any()
    header = store.header
    assert header.padding_tokens == (rows.segments == 0).sum()
    assert header.loss_tokens == rows.mask.sum()
    assert header.dropped_tokens == header.left_out_documents == 0


def test_a_template_of_someone_elses(tmp_path):
    store = build_chat_rows(CONVERSATIONS[:1], BYTES, 100, tmp_path, template=CHATML)["chat"]
    rows = store.read(np.array([0]))
    text = f"{EOT}<|im_start|>user\nquestion 0.0<|im_end|>\n<|im_start|>assistant\nanswer 0.0<|im_end|>\n"
    assert text_of(rows.tokens[0][rows.segments[0] > 0]) == text
    assert text_of(rows.tokens[0][rows.mask[0]]) == "answer 0.0<|im_end|>\n"


def test_what_has_no_room_is_counted(tmp_path):
    items = [conversation(0, 1), conversation(2, 3), {"messages": conversation(1, 1)["messages"], "id": "late"}]
    items[2]["messages"][0]["content"] = "long " * 20
    sizes = [1 + len("".join(text for text, _ in learnt_parts(c["messages"], PLAIN_TEMPLATE))) for c in items]
    store = build_chat_rows(items, BYTES, 60, tmp_path)["chat"]
    assert store.header.left_out_documents == 1
    assert store.header.dropped_tokens == sizes[1] - 60 + sizes[2]
    ids = [span.document_id for index in range(len(store)) for span in store.spans(index)]
    assert sorted(ids) == ["c0", "c2"]
    assert [entry["tokens"] for entry in store.documents()] == sizes


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "template failed"),
        ("{{ messages.__class__.__mro__ }}", "template failed"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "more messages"),
    ],
)
def test_a_template_that_does_not_work_is_a_users_error(tmp_path, template, message):
    with pytest.raises(UserError, match=message) as caught:
        build_chat_rows(CONVERSATIONS[2:4], BYTES, 100, tmp_path, template=template)
    assert "c2" in str(caught.value)


@pytest.mark.parametrize(
    "item",
    [{}, {"messages": "hello"}, {"messages": [{"role": "user", "content": "hi"}]}, 3, {"messages": [{"role": 1}]}],
)
def test_what_is_no_conversation_is_a_users_error(tmp_path, item):
    with pytest.raises(UserError, match="item 1"):
        build_chat_rows([CONVERSATIONS[0], item], BYTES, 100, tmp_path)


PAIRS = [
    {
        "id": f"p{i}",
        "prompt": f"Question {i}?",
        "chosen": " yes" * (1 + i % 3),
        "rejected": " no" * (1 + i % 5),
        "score": 1,
    }
    for i in range(20)
]


def test_pairs_share_their_prompts(tmp_path):
    store = build_pair_rows(PAIRS, BYTES, 40, tmp_path, shard_rows=6, block_bytes=500, workers=1)["pairs"]
    pairs = store.read_pairs(np.arange(len(store)))
    assert len(store) == 20
    for index, pair in enumerate(PAIRS):
        prompt = pairs.prompt[index]
        for rows, name in ((pairs.chosen, "chosen"), (pairs.rejected, "rejected")):
            assert text_of(rows.tokens[index][:prompt]) == EOT + pair["prompt"]
            assert text_of(rows.tokens[index][rows.mask[index]]) == pair[name] + EOT
            assert (rows.segments[index] == 1).sum() == prompt + rows.mask[index].sum()
        assert store.spans(index)[0].document_id == pair["id"]
    header = store.header
    real = (pairs.chosen.segments > 0).sum() + (pairs.rejected.segments > 0).sum()
    assert header.real_tokens == real
    assert header.loss_tokens == pairs.chosen.mask.sum() + pairs.rejected.mask.sum()
    with pytest.raises(UserError, match="pairs of answers"):
        store.read(np.array([0]))


def test_pairs_that_have_no_room_are_counted(tmp_path):
    pairs = [PAIRS[0], PAIRS[1] | {"prompt": "x" * 40}, PAIRS[2] | {"chosen": "y" * 40}]
    store = build_pair_rows(pairs, BYTES, 40, tmp_path)["pairs"]
    assert len(store) == 2
    assert store.header.left_out_documents == 1
    totals = [entry["tokens"] for entry in store.documents()]
    assert store.header.dropped_tokens == sum(totals) - store.header.real_tokens
    assert store.read_pairs(np.array([1])).chosen.mask.sum() == 40 - store.read_pairs(np.array([1])).prompt[0]


def test_a_prompt_may_be_messages(tmp_path):
    pair = {"prompt": [{"role": "user", "content": "Well?"}], "chosen": " yes", "rejected": " no"}
    pairs = build_pair_rows([pair], BYTES, 60, tmp_path)["pairs"].read_pairs(np.array([0]))
    assert (
        text_of(pairs.rejected.tokens[0][pairs.rejected.segments[0] > 0]) == f"{EOT}User: Well?\n\nAssistant: no{EOT}"
    )


def test_pair_rows_read_without_our_code(tmp_path):
    store = build_pair_rows(PAIRS, BYTES, 40, tmp_path, shard_rows=6)["pairs"]
    header = json.loads((store.path / "header.json").read_text())
    assert (header["kind"], header["version"]) == ("pairs", 2)
    record = ArrayRecordReader(str(store.path / "rows-00001.array_record"), "").read([2])[0]
    dtypes = {name: np.dtype(dtype) for name, dtype in header["columns"]}
    sizes = np.cumsum([0, *(header["length"] * dtype.itemsize for dtype in dtypes.values())])
    columns = {
        name: np.frombuffer(record[a:b], dtype)
        for (name, dtype), a, b in zip(dtypes.items(), sizes, sizes[1:], strict=False)
    }
    (span,) = np.frombuffer(record[sizes[-1] :], [tuple(field) for field in header["span_fields"]])
    table = ArrayRecordReader(str(store.path / "documents-00000.array_record"), "")
    pair = PAIRS[8]
    assert json.loads(table.read([int(span["document"])])[0])["id"] == pair["id"]
    assert bytes(columns["tokens"][span["prompt"] : span["chosen"] - 1].tolist()).decode() == pair["chosen"]
    assert bytes(columns["rejected"][span["prompt"] : span["rejected"] - 1].tolist()).decode() == pair["rejected"]


def test_chat_rows_read_without_our_code(tmp_path):
    store = build_chat_rows(CONVERSATIONS, BYTES, 300, tmp_path)["chat"]
    header = json.loads((store.path / "header.json").read_text())
    assert [name for name, _ in header["columns"]] == ["tokens", "mask"]
    record = ArrayRecordReader(str(store.path / "rows-00000.array_record"), "").read([0])[0]
    tokens = np.frombuffer(record[:600], header["columns"][0][1])
    mask = np.frombuffer(record[600:900], header["columns"][1][1])
    spans = np.frombuffer(record[900:], [tuple(field) for field in header["span_fields"]])
    assert spans["document"][0] == 0
    answers = [m["content"] for m in CONVERSATIONS[0]["messages"] if m["role"] == "assistant"]
    end = int(spans["start"][1])
    assert text_of(tokens[:end][mask[:end] == 1]) == "".join(f" {answer}{EOT}" for answer in answers)


def test_kinds_do_not_mix(tmp_path):
    build_chat_rows(CONVERSATIONS, BYTES, 300, tmp_path)
    assert open_rows(tmp_path / "chat").header.kind == "chat"
    with pytest.raises(UserError, match="not pairs"):
        open_rows(tmp_path / "chat").read_pairs(np.array([0]))
    with pytest.raises(UserError, match="no packing"):
        build_rows([], BYTES, 300, tmp_path, packing="worst_fit")
