"""One call of a chat endpoint makes attempts, waits between them, and interprets the answers."""

from __future__ import annotations

import datetime
import email.utils
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from alignpre_jax.endpoints.config import EndpointConfig
from alignpre_jax.endpoints.question import Asked, Completion, prompt_bound
from alignpre_jax.foundation import Interrupted, UserError, derive_seed

Read = Callable[[Asked, bytes], Completion]
_PASSING = (408, 409, 425, 429)  # statuses that may pass, as may all 5xx
_MOST_BYTES = 64 << 20  # the most bytes of an answer
_LEAST_SECRET = 12  # characters; a local server's key is a shorter word, which an answer may well use
_GO_ON = "the same command goes on from here; what was answered is kept"


class _PassingError(Exception):
    """An attempt failed in a way that may pass.

    `after` is the wait in seconds that the endpoint asks for. `charged` says that it may have charged for the attempt
    all the same.
    """

    def __init__(self, reason: str, after: float = 0.0, charged: bool = False):
        super().__init__(reason)
        self.after, self.charged = after, charged


class Caller:
    """A `Caller` calls an endpoint from several threads.

    Args:
      config: the endpoint.
      key: its API key, or nothing. Where an answer repeats the key, it is blotted out before anyone reads it.
      read: makes a completion of the body of an answer; a reader that wants more of the body calls `read_completion`
        first.

    Attributes:
      unanswered: the number of attempts without an answer that may have been charged.
    """

    def __init__(self, config: EndpointConfig, key: str, read: Read):
        import httpx2

        self._config, self._key, self._read = config, key, read
        places = httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=config.timeout, limits=places, headers=headers)
        self._lock = threading.Lock()
        self.unanswered = 0

    def call(self, request: Asked, body: Mapping[str, Any], leave: threading.Event) -> Completion:
        """Returns the answer to a request; once `leave` is set, no further attempt is made.

        Raises:
          UserError: the endpoint refuses the request, asks for too long a wait, or gives no answer after all attempts.
          Interrupted: `leave` was set.
        """
        config, reason = self._config, ""
        for attempt in range(1, config.attempts + 1):
            try:
                return self._attempt(request, body)
            except _PassingError as error:
                reason, after = str(error), error.after
                with self._lock:
                    self.unanswered += error.charged
            if after > config.max_wait:
                what = f"the endpoint asks for a wait of {after:,.0f} s: {reason}"
                fix = f"run the same command later, or raise max_wait from {config.max_wait:g} s"
                raise UserError(what, where=config.chat_url, fix=fix)
            if attempt < config.attempts and leave.wait(max(after, self._backoff(request, attempt))):
                raise Interrupted("another call failed")
        what = f"no answer after {config.attempts} attempts; the last: {reason}"
        raise UserError(what, where=config.chat_url, fix=f"see that the endpoint is up; {_GO_ON}")

    def _backoff(self, request: Asked, attempt: int) -> float:
        """Returns seconds that double with each attempt, less up to a half that differs from request to request."""
        longest = min(self._config.max_wait, self._config.first_wait * 2 ** (attempt - 1))
        return longest * (1 - derive_seed("wait", request.id, request.seed, attempt) / 2**32)

    def _attempt(self, request: Asked, body: Mapping[str, Any]) -> Completion:
        import httpx2

        deadline = time.monotonic() + self._config.timeout
        data = bytearray()
        try:
            with self._client.stream("POST", self._config.chat_url, json=body) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if time.monotonic() > deadline:
                        raise _PassingError(f"the answer took more than {self._config.timeout:g} s", charged=True)
                    if len(data) > _MOST_BYTES:
                        raise _PassingError(f"an answer of more than {_MOST_BYTES:,} bytes", charged=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise _PassingError(f"no connection: {error}") from None
        except httpx2.RequestError as error:
            raise _PassingError(
                f"the connection failed: {type(error).__name__} {error}".strip(), charged=True
            ) from None
        if len(self._key) >= _LEAST_SECRET:
            data = data.replace(self._key.encode(), b"[key]")
        return self._judge(request, response.status_code, response.headers, bytes(data))

    def _judge(self, request: Asked, status: int, headers: Mapping[str, str], data: bytes) -> Completion:
        if status == 200:
            return self._read(request, data)
        message, code = _explanation(data)
        said = f"status {status}: {message}"
        if code == "content_filter":  # stopped the prompt: another seed brings another, or the brief is given up
            return Completion("", finish=code)
        if (status in _PASSING or status >= 500) and code != "insufficient_quota":
            raise _PassingError(said, after=_retry_after(headers.get("Retry-After", "")))
        fix = {401: "check the key", 403: "check the key and what it may do", 404: "check url and model"}.get(status)
        if 300 <= status < 400:
            said, fix = f"status {status}: moved to {headers.get('Location', 'nowhere')}", "give the new place as url"
        fix = fix or "change what the endpoint objects to"
        raise UserError(f"the endpoint refuses: {said}", where=self._config.chat_url, fix=f"{fix}; {_GO_ON}")


def read_completion(request: Asked, data: bytes) -> Completion:
    """Reads what an answer of status 200 says.

    Raises:
      _PassingError: it is not the answer of a chat endpoint.
    """
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        if content is not None and not isinstance(content, str):
            raise TypeError(f"the content is {type(content).__name__}")
        finish = choice.get("finish_reason") or "stop"
        usage = answer.get("usage") or {}
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message, _ = _explanation(data)
        reason = f"not an answer of a chat endpoint ({type(error).__name__}): {message}"
        raise _PassingError(reason, charged=True) from None
    if type(read) is int and type(written) is int and min(read, written) >= 0:
        return Completion(content or "", read, written, str(finish))
    most = prompt_bound((request.system, request.user))
    return Completion(content or "", most, request.max_tokens, str(finish), "bounded")


def _explanation(data: bytes) -> tuple[str, str]:
    """Returns the endpoint's own words about an error, in one line, and its code for it."""
    code = ""
    try:
        answer = json.loads(data)
        error = answer.get("error", answer)
        code = str(error.get("code", "")) if isinstance(error, dict) else ""
        words = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        text = words if isinstance(words, str) else json.dumps(words or answer)
    except (ValueError, AttributeError, RecursionError):
        text = data.decode("utf-8", errors="replace")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (text[:300] or "without a word"), code


def _retry_after(value: str) -> float:
    """Returns the seconds to wait that a Retry-After header asks for (RFC 9110, 10.2.3).

    The header has a number or a date; anything else is read as 0.
    """
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value.strip()):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, (date.replace(tzinfo=date.tzinfo or datetime.UTC) - now).total_seconds())
