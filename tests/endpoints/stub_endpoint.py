"""An OpenAI-compatible endpoint on loopback that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-0123456789abcdef"


class Answer:
    """What the stub sends: a chat answer, unless told otherwise."""

    def __init__(self, text="", *, status=200, headers=(), body=None, wait=0.0, drop_after=None, drip=0.0, **message):
        self.status, self.headers, self.wait = status, dict(headers), wait
        self.drop_after, self.drip = drop_after, drip
        finish = message.pop("finish", "stop")
        usage = message.pop("usage", {"prompt_tokens": 100, "completion_tokens": 40})
        chat = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
        if usage:
            chat["usage"] = usage
        self.body = body if body is not None else json.dumps(chat).encode()
        self.usage = usage if status == 200 and body is None else {}


def prose(asked: dict, count: int = 0) -> Answer:
    """A text of 60 words that only the messages and the seed decide."""
    name = hashlib.sha256(json.dumps([asked["messages"], asked["seed"]]).encode()).hexdigest()
    words = [name[i : i + 4] for i in range(0, 60)]
    usage = {"prompt_tokens": 100 + int(name[:2], 16), "completion_tokens": 40 + int(name[2:4], 16)}
    return Answer(f"The AI at {name} " + " ".join(words) + ".", usage=usage)


class Stub:
    """The server's memory: every body it was sent, how often each came, and what it charged."""

    def __init__(self, answer: Callable[[dict, int], Answer]):
        self.answer = answer
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.answered: collections.Counter[str] = collections.Counter()
        self.usage: collections.Counter[str] = collections.Counter()
        self.under_way = self.most_under_way = 0
        self.url = ""
        self._lock = threading.Lock()
        self._asked: collections.Counter[str] = collections.Counter()

    def take(self, body: dict, headers: dict[str, str]) -> tuple[str, Answer]:
        name = json.dumps([body["messages"], body["seed"]])
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            count = self._asked[name]
            self._asked[name] += 1
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        return name, self.answer(body, count)

    def done(self, name: str, answer: Answer, whole: bool) -> None:
        with self._lock:
            self.under_way -= 1
            if whole and answer.status == 200:
                self.answered[name] += 1
                self.usage.update(answer.usage)


@contextlib.contextmanager
def serving(answer: Callable[[dict, int], Answer] = prose) -> Iterator[Stub]:
    """Runs the stub; `stub.url` is where."""
    stub = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            name, answer = stub.take(body, dict(self.headers))
            whole = False
            try:
                time.sleep(answer.wait)
                if answer.drop_after == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for header, value in answer.headers.items():
                    self.send_header(header, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if answer.drip:
                    for byte in answer.body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(answer.drip)
                else:
                    self.wfile.write(answer.body[: answer.drop_after])
                whole = answer.drop_after is None
                if not whole:
                    self.close_connection = True
            except OSError:
                self.close_connection = True  # the caller left
            finally:
                stub.done(name, answer, whole)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
