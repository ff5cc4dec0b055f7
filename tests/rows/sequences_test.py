"""Rows of chats, pairs and prompts: what is learnt of them, what has no room, and what is refused."""

import collections
import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
import talks
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import given, settings
from talks import CHATML, EOT, IM_END, IM_START, chat, pair, prompt

from alignpre_jax.documents import Chat, Document, Message, Pair, Prompt
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import Template, TooSmall, build_rows, load_tokenizer
from alignpre_jax.rows.template import chat_ids

TOKENIZER = talks.chat_tokenizer()
BYTES = load_tokenizer("byte")
CHATS = [chat(i, 1 + i % 3) for i in range(40)]
PAIRS = [pair(i) for i in range(40)]
PROMPTS = [prompt(i) for i in range(40)]


def build(documents, length, root, tokenizer=TOKENIZER, template=CHATML, **options):
    (store,) = build_rows(
        documents, tokenizer, length, root, packing="best_fit", template=template, workers=1, **options
    ).values()
    return store


def sequences(store):
    """(document's id, ids, learnt ids, side) of every segment of a store's rows."""
    rows = store.read(np.arange(len(store)))
    found = []
    for index in range(len(store)):
        for number, span in enumerate(store.spans(index), 1):
            here = rows.segments[index] == number
            assert np.flatnonzero(here).tolist() == list(range(span.start, span.end))
            sides = set() if rows.side is None else set(rows.side[index][here].tolist())
            assert len(sides) <= 1
            ids, mask = rows.tokens[index][here], rows.mask[index][here]
            found.append((span.document_id, ids.tolist(), ids[mask].tolist(), *sides))
    return found


def whole(document):
    return EOT + "".join(f"{IM_START}{m.role}\n{m.content}{IM_END}\n" for m in document.body.messages).rstrip("\n")


@pytest.mark.parametrize("length", [120, 300])
def test_only_what_the_assistant_says_is_learnt_however_chats_are_packed(tmp_path, length):
    chats = [document for document in CHATS if len(whole(document)) - 50 < length]
    store = build(chats, length, tmp_path, shard_rows=5, block_bytes=3000)
    found = {name: (ids, learnt) for name, ids, learnt in sequences(store)}
    for document in chats if length == 300 else []:
        ids, learnt = found[document.id]
        said = [m.content for m in document.body.messages if m.role == "assistant"]
        assert TOKENIZER.decode(learnt) == "".join(answer + IM_END for answer in said)
        assert TOKENIZER.decode(ids) == whole(document).replace(EOT + IM_START, IM_START, 1)
    for _, learnt in found.values():
        assert TOKENIZER.decode(learnt).startswith("answer")  # never the header
    header, rows = store.header, store.read(np.arange(len(store)))
    assert not rows.mask[rows.segments == 0].any()
    assert header.padding_tokens == (rows.segments == 0).sum()
    assert header.learnt_tokens == rows.mask.sum()
    ends = (rows.tokens == TOKENIZER.special_tokens[IM_END]) & rows.mask
    assert header.learnt_ends == ends.sum() == header.turns - header.truncated
    assert header.turns == sum(m.role == "assistant" for d in chats for m in d.body.messages)
    assert (header.kind, header.version, header.left_out_documents) == ("chat", 3, 0)


def test_rows_speak_as_the_sampler_does_in_ids(tmp_path):
    store = build([chat(1)], 120, tmp_path)
    ((_, ids, learnt),) = sequences(store)
    messages = [dataclasses.asdict(message) for message in chat(1).body.messages]
    asked = chat_ids(CHATML, TOKENIZER, messages[:2], True)
    assert asked[0] == TOKENIZER.special_tokens[IM_START]
    assert ids[: len(asked)] == asked
    assert learnt == ids[len(asked) : len(asked) + len(learnt)]


def test_the_plain_template_ends_a_turn_with_end_of_text_which_is_padding_too(tmp_path):
    store = build(CHATS[:5], 300, tmp_path, BYTES, Template())
    rows = store.read(np.arange(len(store)))
    assert {EOT} == {BYTES.decode([i]) for i in set(rows.tokens[rows.segments == 0].tolist())}
    assert BYTES.decode(sequences(store)[1][2]) == f" answer 1.0{EOT} answer 1.1{EOT}"
    assert store.header.learnt_ends == store.header.turns == 9


@pytest.mark.parametrize(
    "source",
    [
        CHATML.source,
        CHATML.source.replace(
            "{{ m.content }}<|im_end|>", "{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>"
        ),
    ],
)
def test_answers_that_begin_like_a_delimiter_are_learnt_from_their_first_token(tmp_path, source):
    body = Chat((Message("user", "?"), Message("assistant", f"\n{IM_START} no")))
    store = build([Document("d", body, "chat", "chat")], 60, tmp_path, template=Template(source))
    ((_, ids, learnt),) = sequences(store)
    assert TOKENIZER.decode(learnt) == f"\n{IM_START} no{IM_END}"
    assert ids.count(TOKENIZER.special_tokens[IM_START]) == 2  # the answer's is text


def test_a_template_that_drops_earlier_thoughts_gives_a_sequence_for_each_turn(tmp_path):
    source = CHATML.source.replace("m.content }}", "m.content if loop.last else m.content.split('</think>')[-1] }}")
    messages = (
        *(Message("user", "a"), Message("assistant", "<think>hm</think>yes")),
        *(Message("user", "b"), Message("assistant", "<think>oh</think>no")),
    )
    store = build([Document("d", Chat(messages), "chat", "chat")], 200, tmp_path, template=Template(source))
    first, second = sequences(store)
    assert TOKENIZER.decode(first[2]) == f"<think>hm</think>yes{IM_END}"
    assert TOKENIZER.decode(second[2]) == f"<think>oh</think>no{IM_END}"
    assert "hm" not in TOKENIZER.decode(second[1])
    assert len(store) == 1  # they share a row, and do not see each other
    assert (store.header.turns, store.header.learnt_ends, store.header.documents) == (2, 2, 1)


def test_turns_that_are_cut_and_chats_whose_prompt_fills_a_row_are_counted(tmp_path):
    late = Document("late", Chat((Message("user", "long " * 20), Message("assistant", "x"))), "chat", "chat")
    documents = [chat(0), chat(2, 3), late]
    store = build(documents, 70, tmp_path)
    header = store.header
    assert header.left_out_documents == 1
    assert (header.turns, header.truncated, header.learnt_ends) == (5, 3, 2)
    assert sorted({name for name, *_ in sequences(store)}) == ["c0", "c2"]
    totals = [entry["tokens"] for entry in store.documents()]
    assert header.dropped_tokens == sum(totals) - header.real_tokens > 0


def test_what_follows_the_last_answer_takes_no_room(tmp_path):
    body = dataclasses.replace(CHATS[0].body, messages=(*CHATS[0].body.messages, Message("user", "Bye")))
    ((_, ids, _),) = sequences(build([dataclasses.replace(CHATS[0], body=body)], 100, tmp_path))
    assert TOKENIZER.decode(ids).endswith(f"answer 0.0{IM_END}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "chat template failed"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages | length }}{{ messages[-1].content }}{{ eos_token }}", "where the cue for it has"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "no special token"),
    ],
)
def test_a_template_that_does_not_work_is_a_users_error_that_names_the_document(tmp_path, template, message):
    with pytest.raises(UserError, match=message) as caught:
        build(CHATS[2:4], 100, tmp_path, template=Template(template))
    assert "c2" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_which_nothing_is_learnt_are_refused(tmp_path):
    silent = Document("d", Chat((Message("user", "hi"),)), "chat", "chat")
    with pytest.raises(UserError, match="nothing is to be learnt"):
        build([silent], 100, tmp_path)
    with pytest.raises(UserError, match="nothing is to be learnt"):
        build(CHATS, 8, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_which_everything_is_learnt_are_refused(tmp_path):
    everything = Template("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    body = Chat((Message("assistant", "yes"), Message("assistant", "no")))
    with pytest.raises(UserError, match="every token is to be learnt"):
        build([Document("d", body, "chat", "chat")], 100, tmp_path, template=everything)


def test_rows_that_do_not_teach_all_ends_are_refused(tmp_path, monkeypatch):
    import alignpre_jax.rows.sequences as module

    def shifted(*arguments):
        """One too early, as by a double shift: the ends are left out."""
        return [[(part, learnt and isinstance(part, str)) for part, learnt in parts] for parts in true(*arguments)]

    true = module.learnt_parts
    monkeypatch.setattr(module, "learnt_parts", shifted)
    with pytest.raises(UserError, match="0 ends of turns are learnt, and there are 79 whole turns"):
        build(CHATS, 300, tmp_path)


def test_chats_and_pairs_are_not_cut_into_rows(tmp_path):
    for documents in (CHATS, PAIRS, PROMPTS):
        with pytest.raises(UserError, match="best_fit"):
            build_rows(documents, TOKENIZER, 100, tmp_path)


def test_a_stratum_has_one_kind(tmp_path):
    other = dataclasses.replace(CHATS[1], body="a text")
    with pytest.raises(UserError, match="kinds 'chat' and 'text'"):
        build([CHATS[0], other], 100, tmp_path)
    with pytest.raises(UserError, match="scored spans"):
        build([dataclasses.replace(CHATS[0], spans=((0, 1, 1.0, ""),))], 100, tmp_path)


def sides(document):
    """The two sequences of a pair: (prompt, answer) as text."""
    body = document.body
    if isinstance(body.prompt, str):
        return [(EOT + body.prompt, answer + EOT) for answer in (body.chosen, body.rejected)]
    asked = f"{IM_START}user\n{body.prompt.messages[0].content}{IM_END}\n{IM_START}assistant\n"
    return [(asked, answer + IM_END) for answer in (body.chosen, body.rejected)]


def test_a_pair_is_two_sequences_of_a_row_that_repeat_the_prompt(tmp_path):
    store = build(PAIRS, 200, tmp_path, shard_rows=3, block_bytes=2000)
    found = collections.defaultdict(list)
    for name, ids, learnt, side in sequences(store):
        found[name].append((TOKENIZER.decode(ids[: -len(learnt)]), TOKENIZER.decode(learnt), side))
    for document in PAIRS:
        chosen, rejected = sides(document)
        assert found[document.id] == [(*chosen, 1), (*rejected, -1)]
    rows = store.read(np.arange(len(store)))
    assert len(store) < len(PAIRS) / 2  # several share a row
    assert ((rows.side == 0) == (rows.segments == 0)).all()
    header = store.header
    assert header.learnt_tokens == rows.mask.sum()
    assert header.turns == header.learnt_ends == 2 * len(PAIRS)
    assert header.tokens == len(store) * 200


def test_a_pair_is_whole_or_left_out(tmp_path):
    long = [
        dataclasses.replace(pair(90), body=Pair("x" * 60, "a", "b")),
        dataclasses.replace(pair(91), body=Pair("x", "y" * 120, "b")),
    ]
    store = build([PAIRS[0], *long, PAIRS[2]], 120, tmp_path)
    header = store.header
    assert header.left_out_documents == 2
    assert (header.turns, header.truncated, header.learnt_ends) == (8, 4, 4)
    assert {name for name, *_ in sequences(store)} == {"p0", "p2"}
    totals = [entry["tokens"] for entry in store.documents()]
    assert header.dropped_tokens == sum(totals) - header.real_tokens
    with pytest.raises(UserError, match="nothing is to be learnt"):
        build(long, 100, tmp_path / "long")


TEXTS = st.text(st.sampled_from("ab <é|"), max_size=7)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.booleans(), TEXTS, TEXTS), min_size=1, max_size=12), st.sampled_from([90, 130, 400])
)
def test_packed_pairs_are_the_unpacked_ones(tmp_path_factory, bodies, length):
    documents = [
        Document(f"p{i}", Pair(Chat((Message("user", ask),)) if is_chat else f"{ask}?", good, bad), "pairs", "pairs")
        for i, (ask, is_chat, good, bad) in enumerate(bodies)
    ]
    store = build(documents, length, tmp_path_factory.mktemp("pairs"), block_bytes=300)
    packed = collections.Counter()
    for _, ids, learnt, side in sequences(store):
        packed[tuple(ids[: -len(learnt)]), tuple(learnt), side] += 1
    alone = collections.Counter()
    for document in documents:
        one = build([document], 2000, tmp_path_factory.mktemp("one"))
        assert len(one) == 1
        for _, ids, learnt, side in sequences(one):
            alone[tuple(ids[: -len(learnt)]), tuple(learnt), side] += 1
    assert packed <= alone
    if length == 400:
        assert packed == alone


def test_prompts_end_with_the_cue_for_an_answer_and_are_not_learnt(tmp_path):
    store = build(PROMPTS, 128, tmp_path)
    found = {name: (TOKENIZER.decode(ids), learnt) for name, ids, learnt in sequences(store)}
    for document in PROMPTS:
        asked = document.body.prompt
        text = (
            EOT + asked
            if isinstance(asked, str)
            else f"{IM_START}user\n{asked.messages[0].content}{IM_END}\n{IM_START}assistant\n"
        )
        assert found[document.id] == (text, [])
    assert store.document(3)["answer"] == "3"
    assert (store.header.learnt_tokens, store.header.turns, store.header.left_out_documents) == (0, 0, 0)
    long = Document("long", Prompt("x" * 200), "prompts", "prompts")
    assert build([long, *PROMPTS], 128, tmp_path / "long").header.left_out_documents == 1
    with pytest.raises(TooSmall, match="none of the 1 documents") as caught:
        build([long], 128, tmp_path / "only")
    assert caught.value.stratum == "prompts"


def test_the_format_reads_without_our_code(tmp_path):
    store = build(PAIRS, 200, tmp_path)
    header = json.loads((store.path / "header.json").read_text())
    assert [name for name, _ in header["columns"]] == ["tokens", "mask", "side"]
    record = ArrayRecordReader(str(store.path / "rows-00000.array_record"), "").read([0])[0]
    columns, begin = {}, 0
    for name, dtype in header["columns"]:
        end = begin + header["length"] * np.dtype(dtype).itemsize
        columns[name], begin = np.frombuffer(record[begin:end], dtype), end
    spans = np.frombuffer(record[begin:], [tuple(field) for field in header["span_fields"]])
    assert spans["part"][:2].tolist() == [0, 1]
    first, second = int(spans["start"][1]), int(spans["start"][2])
    assert set(columns["side"][:first]) == {1}
    assert set(columns["side"][first:second]) == {-1}
    answer = columns["tokens"][first:second][columns["mask"][first:second] == 1]
    assert TOKENIZER.decode(answer.tolist()) == " no" + IM_END
