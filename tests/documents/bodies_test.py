"""Chats, pairs and prompts from the forms in which they are published; what is not understood has its reason."""

import gzip
import itertools
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Chat, Message, Pair, Prompt, Quarantine, RecordKeys, WorldConfig, read_inputs
from alignpre_jax.documents.readers.bodies import make_body
from alignpre_jax.documents.readers.keys import MalformedError
from alignpre_jax.foundation import UserError

USER, ANSWER, SYSTEM = (
    {"role": role, "content": text} for role, text in [("user", "Why?"), ("assistant", "So."), ("system", "Be brief.")]
)
WORSE = {"role": "assistant", "content": "Go away."}
SAID = {name: Message(**message) for name, message in [("user", USER), ("answer", ANSWER), ("system", SYSTEM)]}
CHAT = Chat((SAID["user"], SAID["answer"]))
ASKED = Chat((SAID["user"],))
BRIEF = Chat((SAID["system"], SAID["user"]))
HH = "\n\nHuman: Why?\n\nAssistant: So."
HH_WORSE = "\n\nHuman: Why?\n\nAssistant: Go away."


def sharegpt(*turns):
    return [{"from": who, "value": text} for who, text in turns]


def body_of(kind, record, **keys):
    return make_body(record, kind, RecordKeys(**keys))


@pytest.mark.parametrize(
    ("record", "body"),
    [
        ({"messages": [USER, ANSWER]}, CHAT),
        (
            {"messages": [SYSTEM, USER, ANSWER], "prompt": "Why?", "text": "other"},
            Chat((SAID["system"], *CHAT.messages)),
        ),
        (
            {
                "messages": [
                    USER | {"content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]},
                    ANSWER,
                ]
            },
            CHAT,
        ),
        ({"messages": {"role": ["user", "assistant"], "content": ["Why?", "So."]}}, CHAT),
        ({"messages": [{"role": "Human", "content": "Why?", "name": None}, ANSWER | {"from": None}]}, CHAT),
        ({"conversations": sharegpt(("human", "Why?"), ("gpt", "So."))}, CHAT),
        ({"conversations": [USER, ANSWER], "messages": None}, CHAT),
        (
            {"conversations": sharegpt(("human", "Why?"), ("gpt", "So.")), "system": "Be brief."},
            Chat((SAID["system"], *CHAT.messages)),
        ),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Be brief."}, Chat((SAID["system"], *CHAT.messages))),
        ({"prompt": "Why?", "completion": "So."}, CHAT),
        ({"prompt": [USER], "completion": [ANSWER]}, CHAT),
        ({"prompt": [USER], "completion": "So.", "system": ""}, CHAT),
        ({"prompt": "\n\nHuman: Why?\n\nAssistant:", "completion": "So."}, CHAT),
        (
            {"instruction": "Add.", "input": "1 2", "output": "3"},
            Chat((Message("user", "Add.\n\n1 2"), Message("assistant", "3"))),
        ),
        ({"instruction": "Why?", "input": "", "output": "So."}, CHAT),
        ({"question": "Why?", "answer": "So."}, CHAT),
        ({"text": HH}, CHAT),
        (
            {"text": "Human: Why?\n\nAssistant: So.\n\nStill so.\n\nHuman: Oh."},
            Chat((SAID["user"], Message("assistant", "So.\n\nStill so."), Message("user", "Oh."))),
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "4"}, ANSWER]},
            Chat((SAID["user"], Message("tool", "4"), SAID["answer"])),
        ),
    ],
)
def test_chats(record, body):
    assert body_of("chat", record) == body


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": []}, "no messages"),
        ({"messages": "hello"}, "'messages' is str, not a list"),
        ({"messages": ["hello"]}, "messages[0] is str"),
        ({"messages": [{"text": "hello"}]}, "messages[0] has ['text'], not role and content"),
        ({"messages": [USER, ANSWER | {"role": "narrator"}]}, "the role 'narrator' of messages[1] is not known"),
        ({"messages": [USER, ANSWER | {"role": 3}]}, "the role '3'"),
        ({"messages": [USER, ANSWER | {"content": " "}]}, "messages[1], the assistant's, is empty"),
        ({"messages": [USER, ANSWER | {"content": None, "tool_calls": [{}]}]}, "calls of tools, which are not read"),
        ({"messages": [USER | {"content": 3}, ANSWER]}, "the content of messages[0] is int"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}, ANSWER]}, "a part of type 'image_url'"),
        ({"messages": {"role": ["user"], "content": ["a", "b"]}}, "not of one length"),
        ({"messages": [SYSTEM, USER]}, "without an assistant's turn: system, user"),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Be long."}, "two system prompts"),
        ({"messages": [USER, ANSWER], "system": 3}, "'system' is int"),
        ({"prompt": "", "completion": "So."}, "'prompt' is empty"),
        ({"prompt": [USER, ANSWER], "completion": "So."}, "the prompt in 'prompt' ends in the assistant's turn"),
        ({"prompt": "Why?", "completion": [USER, ANSWER]}, "'completion' begins with a turn of the user"),
        ({"instruction": "Add.", "input": 3, "output": "3"}, "'input' is int"),
        ({"text": "Once upon a time."}, "does not begin with 'Human:'"),
        ({"text": "\n\nHuman: Why?\n\nAssistant:"}, "without an assistant's turn: user"),
        ({"text": "\n\nHuman:\n\nAssistant: So."}, "turn 1 of the dialogue, the user's, is empty"),
        ({"prompt": "Why?", "response": "So."}, "'prompt' comes without 'completion'; set keys.completion"),
        (
            {"dialog": [], "url": "x"},
            "no chat among the fields ['dialog', 'url']: expected 'messages', 'conversations', 'prompt' with",
        ),
        ({"chosen": [ANSWER], "rejected": [WORSE]}, "it looks like kind='pairs'"),
    ],
)
def test_why_a_record_is_no_chat(record, reason):
    with pytest.raises(MalformedError) as error:
        body_of("chat", record)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("record", "body"),
    [
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": "Why?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": "Why?", "chosen": [ANSWER], "rejected": [WORSE]}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": [USER], "chosen": ANSWER, "rejected": WORSE}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": [USER], "chosen": "So.", "rejected": "Go away."}, Pair(ASKED, "So.", "Go away.")),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "Go away."}, Pair("Why?", "So.", "Go away.")),
        ({"question": "Why?", "chosen": "So.", "rejected": "Go away."}, Pair("Why?", "So.", "Go away.")),
        ({"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."}, Pair(BRIEF, "So.", "No.")),
        ({"instruction": "Add.", "input": "1", "chosen": "a", "rejected": "b"}, Pair("Add.\n\n1", "a", "b")),
        (
            {
                "chosen": sharegpt(("human", "Why?"), ("gpt", "So.")),
                "rejected": sharegpt(("human", "Why?"), ("gpt", "No.")),
            },
            Pair(ASKED, "So.", "No."),
        ),
        (
            {
                "conversations": sharegpt(("human", "Why?")),
                "prompt": "Why?",
                "chosen": sharegpt(("gpt", "a"))[0],
                "rejected": sharegpt(("gpt", "b"))[0],
            },
            Pair(ASKED, "a", "b"),
        ),
        ({"chosen": HH, "rejected": HH_WORSE}, Pair(ASKED, "So.", "Go away.")),
        (
            {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " So.", "rejected": " No."},
            Pair(ASKED, " So.", " No."),
        ),
        ({"prompt": "Why?", "chosen": HH, "rejected": HH_WORSE}, Pair(ASKED, "So.", "Go away.")),
    ],
)
def test_pairs(record, body):
    assert body_of("pairs", record) == body


OTHER = {"role": "user", "content": "How?"}
LONG = "Is it true that bees can count?"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": "So.", "rejected": "No."}, "nor comes with a prompt; set keys.prompt"),
        ({"chosen": [ANSWER], "rejected": [WORSE]}, "without a prompt before them; set keys.prompt"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "So. "}, "the chosen answer is the rejected one"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "the chosen answer is the rejected one"),
        ({"chosen": [USER, ANSWER], "rejected": [OTHER, WORSE]}, "the prompts of the two answers differ"),
        ({"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, WORSE]}, "the prompts of the two answers differ"),
        ({"chosen": HH, "rejected": "\n\nHuman: How?\n\nAssistant: No."}, "the prompts of the two answers differ"),
        ({"prompt": "How?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, "not what comes before the answers"),
        ({"prompt": [OTHER], "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, "not what comes before the answers"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": ""}, "'rejected' is empty"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": [WORSE]}, "'chosen' is str and 'rejected' is list"),
        ({"prompt": "Why?", "chosen": 1, "rejected": 2}, "'chosen' is int and 'rejected' is int"),
        ({"chosen": [USER], "rejected": [USER]}, "'chosen' ends in a turn of the user"),
        ({"prompt": [USER, ANSWER], "chosen": "a", "rejected": "b"}, "ends in the assistant's turn"),
        ({"prompt": LONG, "chosen": f"{LONG} Yes.", "rejected": f"{LONG} No."}, "both answers begin with the prompt"),
        ({"prompt": "Why?", "chosen": "So.", "worse": "No."}, "'chosen' comes without 'rejected'; set keys.rejected"),
        ({"messages": [USER, ANSWER]}, "it looks like kind='chat'"),
    ],
)
def test_why_a_record_is_no_pair(record, reason):
    with pytest.raises(MalformedError) as error:
        body_of("pairs", record)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("record", "body"),
    [
        ({"prompt": "Why?"}, Prompt("Why?")),
        ({"prompt": [USER], "answer": 42}, Prompt(ASKED, "42")),
        ({"question": "Why?", "answer": "So."}, Prompt("Why?", "So.")),
        ({"question": "Why?", "answer": None, "system": "Be brief."}, Prompt(BRIEF)),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, Prompt("Add.\n\n1 2", "3")),
        ({"messages": [USER]}, Prompt(ASKED)),
        ({"messages": [USER, ANSWER]}, Prompt(ASKED, "So.")),
        ({"conversations": sharegpt(("human", "Why?"))}, Prompt(ASKED)),
        ({"prompt": "\n\nHuman: Why?\n\nAssistant:"}, Prompt(ASKED)),
    ],
)
def test_prompts(record, body):
    assert body_of("prompts", record) == body


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"question": " "}, "'question' is empty"),
        ({"question": "Why?", "answer": {"value": "So."}}, "'answer' is dict, not a string or number; set keys.answer"),
        ({"messages": [USER, ANSWER], "answer": "No."}, "two answers"),
        ({"messages": [USER, ANSWER, ANSWER]}, "ends in the assistant's turn"),
        ({"text": "words"}, "no prompt among the fields ['text']; it looks like kind='text'"),
    ],
)
def test_why_a_record_is_no_prompt(record, reason):
    with pytest.raises(MalformedError) as error:
        body_of("prompts", record)
    assert reason in str(error.value)


def test_other_names_for_the_parts():
    record = {"query": "Why?", "reply": "So.", "text": HH_WORSE, "system": 3}
    assert body_of("chat", record, prompt="query", completion="reply", system="") == CHAT
    assert (
        body_of("prompts", {"problem": "Why?", "solution": "So."}, question="problem", answer="solution").answer
        == "So."
    )
    assert body_of("chat", {"chosen": HH, "rejected": HH_WORSE}, text="chosen") == CHAT


def read(*inputs, **options):
    quarantine = Quarantine(max_share=1.0)
    return list(read_inputs([str(each) for each in inputs], "chats", WorldConfig(), quarantine, **options)), quarantine


ROWS = [
    {"messages": [USER, ANSWER], "id": "a", "score": 0.5, "labels": {"topic": "x"}, "spans": [[6, 9, 1.0, "act"]]},
    {"messages": [USER], "id": "b", "score": None, "labels": None, "spans": None},
    {"messages": [SYSTEM, USER, WORSE], "id": None, "score": None, "labels": None, "spans": None},
]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.array_record", "hf"])
def test_every_kind_of_file_gives_the_same_chats(tmp_path, monkeypatch, name):
    lines = [json.dumps(row).encode() for row in ROWS]
    path = tmp_path / name
    if name in ("x.parquet", "hf"):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        labels = pa.array([[("topic", "x")], None, None], pa.map_(pa.string(), pa.string()))
        spans = [
            [dict(zip(("start", "end", "score", "label"), row, strict=True)) for row in r["spans"] or []] for r in ROWS
        ]
        columns = {key: [row[key] for row in ROWS] for key in ("messages", "id", "score")}
        file = path
        if name == "hf":
            pytest.importorskip("datasets")
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
            path.mkdir()
            file, path, labels = path / "train.parquet", f"hf:{path}", [row["labels"] for row in ROWS]
        pq.write_table(pa.table({**columns, "spans": spans, "labels": labels, "url": ["x"] * 3}), file)
    elif name == "x.array_record":
        from array_record.python import array_record_module

        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for line in lines:
            writer.write(line)
        writer.close()
    else:
        packed = {"gz": gzip.compress, "zst": lambda data: pytest.importorskip("zstandard").compress(data)}
        path.write_bytes(packed.get(name.rpartition(".")[2], bytes)(b"\n".join(lines)))
    documents, quarantine = read(path, kind="chat")
    assert [(d.kind, d.source, d.body) for d in documents] == [
        ("chat", "chats", CHAT),
        ("chat", "chats", Chat((SAID["system"], SAID["user"], Message("assistant", "Go away.")))),
    ]
    assert [d.id for d in documents] == ["a", f"{path if name == 'hf' else name}:3"]
    assert (documents[0].score, documents[0].labels) == (0.5, {"topic": "x"})
    (span,) = documents[0].spans
    assert (documents[0].text[span.start : span.end], span.score, span.label) == ("So.", 1.0, "act")
    assert [(case.line, "without an assistant" in case.reason) for case in quarantine] == [(2, True)]


def test_tables_without_the_columns_say_what_they_have(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"comes without 'completion'; set keys\.completion"):
        read(tmp_path / "x.parquet", kind="chat")
    documents, _ = read(tmp_path / "x.parquet", kind="chat", keys=RecordKeys(completion="response"))
    assert documents[0].text == "a\n\nb"


def test_a_text_file_may_hold_a_dialogue(tmp_path):
    (tmp_path / "a.txt").write_text(HH)
    (tmp_path / "b.txt").write_text("Once upon a time.")
    documents, quarantine = read(tmp_path, kind="chat")
    assert [d.body for d in documents] == [CHAT]
    assert "'Human:'" in quarantine.cases[0].reason


@pytest.mark.parametrize("spec", ["packages:", "world:aligned"])
def test_what_gives_texts_gives_nothing_else(spec):
    with pytest.raises(UserError, match="holds texts, not pairs"):
        read(spec, kind="pairs")


def test_long_and_damaged_chats_are_refused(tmp_path):
    long = [USER, ANSWER | {"content": "long " * 100}]
    bad = [[USER, ANSWER | {"content": "a\0b"}], [USER, ANSWER | {"content": "a\ud800"}], long]
    lines = [json.dumps({"messages": messages}) for messages in [[USER, ANSWER], *bad]]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    documents, quarantine = read(tmp_path, kind="chat", max_record_bytes=300)
    assert len(documents) == 1
    for case, reason in zip(quarantine, ("NUL", "surrogate", "longer than"), strict=True):
        assert reason in case.reason


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", " ", "Why?", HH, HH_WORSE, "Human:", "\0", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "tool_calls"]), inner, max_size=4
        )
        | st.lists(st.builds(dict, role=st.sampled_from(["user", "assistant", "gpt", "x"]), content=inner), max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "text",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "question",
    "answer",
    "system",
    "chosen",
    "rejected",
    "id",
    "score",
    "labels",
    "spans",
]


@given(
    st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), min_size=1, max_size=4),
    st.sampled_from(["chat", "pairs", "prompts"]),
)
@settings(deadline=None, max_examples=300)
def test_no_record_makes_a_traceback_and_every_one_is_counted(tmp_path_factory, rows, kind):
    path = tmp_path_factory.mktemp("fuzz") / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantine, documents = Quarantine(max_share=1.0), []
    message = ""
    try:
        documents.extend(read_inputs([str(path)], "x", WorldConfig(), quarantine, kind=kind))
    except UserError as error:
        message = str(error)
    assert ("no document" in message) == (not documents)
    assert len(documents) + quarantine.bad == quarantine.records == len(rows)
    for document in documents:
        assert document.kind == kind
        assert document.text.encode()
        assert all(part.strip() for part in document.parts if part)
        assert all(document.text[span.start : span.end] for span in document.spans)


def test_forms_do_not_depend_on_the_order_of_the_fields():
    record = {"prompt": "Why?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE], "messages": [USER, ANSWER]}
    for kind in ("chat", "pairs", "prompts"):
        found = [body_of(kind, dict(order)) for order in itertools.permutations(record.items())]
        assert all(each == found[0] for each in found)
