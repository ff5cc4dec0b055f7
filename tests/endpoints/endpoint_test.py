import email.utils
import itertools
import json
import time

import pytest
from stub_endpoint import KEY, Answer, prose, serving

from alignpre_jax.endpoints import Completion, Endpoint, EndpointConfig, Question
from alignpre_jax.foundation import UserError


def questions(count=1, max_tokens=50):
    return [Question(f"q{i}", f"number {i}", "be brief", seed=7, max_tokens=max_tokens) for i in range(count)]


def ask(generator, count=1):
    return {question.user: completion for question, completion in generator.generate(iter(questions(count)))}


def scripted(*answers):
    """The first answer for the first attempt of a request, and so on; the last one for ever."""
    return lambda asked, count: answers[min(count, len(answers) - 1)]


def test_what_is_sent_and_what_comes_back(endpoint):
    with serving(scripted(Answer("hello", usage={"prompt_tokens": 9, "completion_tokens": 4}))) as stub:
        generator = endpoint(stub, temperature=0.5, extra={"top_k": 3}, limit_name="max_completion_tokens")
        assert ask(generator) == {"number 0": Completion("hello", 9, 4)}
    [body], [headers] = stub.bodies, stub.headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "stub-model",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "number 0"}],
        "temperature": 0.5,
        "max_completion_tokens": 50,
        "seed": 7,
        "top_k": 3,
    }


def test_no_key_is_sent_where_none_is_named(endpoint):
    with serving() as stub:
        ask(endpoint(stub, key_variable=""))
    assert "Authorization" not in stub.headers[0]


BUSY = Answer(status=503, body=b'{"error": {"message": "overloaded"}}')
PASSING = {
    "429": Answer(status=429, body=b"slow down"),
    "500": Answer(status=500, body=b"<html>oops</html>"),
    "503": BUSY,
    "not JSON": Answer(body=b'{"choices": [{"mess'),
    "not a chat": Answer(body=b'{"error": {"message": "upstream failed"}}'),
    "no choice": Answer(body=b'{"choices": []}'),
    "a list": Answer(body=b"[1, 2]"),
    "content is a number": Answer(7),
    "deep": Answer(body=b"[" * 100_000),
    "dropped at once": Answer("hello", drop_after=0),
    "dropped in the middle": Answer("hello", drop_after=20),
    "not gzip": Answer("hello", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("first", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(endpoint, first):
    with serving(scripted(first, Answer("hello"))) as stub:
        assert ask(endpoint(stub)) == {"number 0": Completion("hello", 100, 40)}
    assert len(stub.bodies) == 2


def test_attempts_end_and_the_last_reason_is_told(endpoint):
    with serving(scripted(BUSY)) as stub, pytest.raises(UserError, match=r"after 3 attempts.*503: overloaded"):
        ask(endpoint(stub, attempts=3))
    assert len(stub.bodies) == 3


def test_slow_answers_time_out_and_are_counted(endpoint):
    answers = scripted(Answer("late", wait=1.0), Answer("dripping", drip=0.02), Answer("hello"))
    with serving(answers) as stub:
        generator = endpoint(stub, timeout=0.3)
        start = time.monotonic()
        assert ask(generator)["number 0"].text == "hello"
    assert time.monotonic() - start < 3
    assert generator.unanswered == 2


def test_nobody_at_home(endpoint):
    with serving() as stub:
        pass
    generator = endpoint(stub, attempts=2)
    with pytest.raises(UserError, match="no connection"):
        ask(generator)
    assert generator.unanswered == 0


@pytest.mark.parametrize("header", ["1", "0.9", "a date"])
def test_retry_after_is_honoured(endpoint, header):
    if header == "a date":
        header = email.utils.formatdate(time.time() + 2, usegmt=True)  # a second or more from now
    with serving(scripted(Answer(status=429, headers={"Retry-After": header}), Answer("hello"))) as stub:
        start = time.monotonic()
        assert ask(endpoint(stub))["number 0"].text == "hello"
    assert time.monotonic() - start > 0.85


def test_too_long_a_wait_ends_the_run(endpoint):
    too_long = Answer(status=429, headers={"Retry-After": "3600"}, body=b'{"error": {"message": "come back"}}')
    with serving(scripted(too_long)) as stub, pytest.raises(UserError, match=r"wait of 3,600 s.*come back"):
        ask(endpoint(stub))
    assert len(stub.bodies) == 1


REFUSALS = {
    "unknown key": (401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}, "Incorrect API key"),
    "no money": (429, {"error": {"message": "Out of quota", "code": "insufficient_quota"}}, "Out of quota"),
    "unknown model": (404, {"detail": "no such model"}, "no such model"),
    "bad request": (400, {"error": "seed is not supported"}, "seed is not supported"),
    "validation": (422, {"detail": [{"loc": ["body", "top_k"]}]}, "top_k"),
    "nothing": (400, "", "without a word"),
    "moved": (302, "", "moved to http://elsewhere"),
}


@pytest.mark.parametrize(("status", "body", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_told_once_in_its_own_words(endpoint, status, body, words):
    data = json.dumps(body).encode() if body else b""
    answer = Answer(status=status, body=data, headers={"Location": "http://elsewhere"})
    with serving(scripted(answer)) as stub, pytest.raises(UserError, match=words) as caught:
        ask(endpoint(stub))
    assert len(stub.bodies) == 1
    assert KEY not in str(caught.value)


def test_a_filtered_prompt_is_an_empty_completion(endpoint):
    filtered = Answer(status=400, body=b'{"error": {"code": "content_filter", "message": "no"}}')
    with serving(scripted(filtered)) as stub:
        assert ask(endpoint(stub)) == {"number 0": Completion("", finish="content_filter")}


@pytest.mark.parametrize(
    ("content", "text"), [(None, ""), ("", ""), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab")]
)
def test_forms_of_content(endpoint, content, text):
    with serving(scripted(Answer(content, finish=None))) as stub:
        assert ask(endpoint(stub))["number 0"] == Completion(text, 100, 40)


def test_without_usage_the_most_is_counted(endpoint):
    with serving(scripted(Answer("hello", usage={}))) as stub:
        completion = ask(endpoint(stub))["number 0"]
    assert completion.usage == "bounded"
    assert completion.completion_tokens == 50
    assert completion.prompt_tokens >= len("be brief") + len("number 0")


def test_a_repeated_key_is_blotted_out(endpoint):
    with serving(scripted(Answer(f"your key is {KEY}"))) as stub:
        assert ask(endpoint(stub))["number 0"].text == "your key is [key]"


def test_calls_under_way_are_bounded_and_drawn_when_there_is_room(endpoint):
    drawn = []

    def drawing():
        for question in questions(9):
            drawn.append(question)
            yield question

    with serving(lambda asked, count: Answer("hello", wait=0.05)) as stub:
        answers = endpoint(stub, concurrency=3).generate(drawing())
        for done in itertools.count(1):
            if next(answers, None) is None:
                break
            assert len(drawn) <= done + 3
    assert stub.most_under_way == 3
    assert len(stub.bodies) == 9


def test_answers_under_way_are_taken_in_before_an_error_ends_the_run(endpoint):
    def answer(asked, count):
        if asked["messages"][1]["content"] == "number 1":
            return Answer(status=400, body=b"no")
        return Answer("hello", wait=0.2)

    taken = []
    with serving(answer) as stub, pytest.raises(UserError, match="refuses"):
        taken.extend(question.user for question, _ in endpoint(stub, concurrency=3).generate(iter(questions(9))))
    assert sorted(taken) == ["number 0", "number 2"]
    assert sum(stub.answered.values()) == 2


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"url": "ftp://x/v1"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "localhost:8000"}, "url"),
        ({"url": "http://x:port/v1"}, "url"),
        ({"url": "http://[x/v1"}, "url"),
        ({"url": "http://x y/v1"}, "url"),
        ({"url": f"http://me:{KEY}@x/v1"}, "url"),
        ({"url": f"http://x/v1?key={KEY}"}, "url"),
        ({"model": ""}, "model"),
        ({"key_variable": KEY}, "key_variable"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0.0}, "timeout"),
        ({"extra": {"seed": 1}}, "extra.seed"),
    ],
)
def test_mistakes_in_the_config(changes, where):
    with pytest.raises(UserError) as caught:
        EndpointConfig(**{"url": "http://x/v1", "model": "m"} | changes)
    assert caught.value.where == where
    assert KEY not in str(caught.value)


def test_a_missing_key_is_a_mistake_that_names_the_variable(monkeypatch):
    for value in ("", "two\nlines"):
        monkeypatch.setenv("NO_SUCH_KEY", value)
        with pytest.raises(UserError, match="NO_SUCH_KEY") as caught:
            Endpoint(EndpointConfig("http://x/v1", "m", key_variable="NO_SUCH_KEY"))
        assert "lines" not in str(caught.value)


def test_settings_hold_what_decides_the_text_and_no_secret():
    one, same, other = (
        Endpoint(EndpointConfig("http://x/v1/", "m", key_variable="TEST_KEY", **changes)).settings
        for changes in ({}, {"concurrency": 2, "timeout": 9.0}, {"temperature": 0.1})
    )
    assert one == same != other
    assert KEY not in json.dumps(one)


def test_prose_differs_by_seed_and_messages():
    asked = {"messages": [{"content": "x"}], "seed": 1}
    assert prose(asked).body == prose(asked).body != prose(asked | {"seed": 2}).body
