"""The completions of a folder are kept in an append-only file, so that nothing is generated or paid for twice.

The first line of the JSON Lines file is the header `{"format": "alignpre.completions", "version": 1}`. Each further
line is one completion: "key", which names all that decides it, "role", which says what it was asked for, the fields of
`Completion`, and "cost" in micro-dollars at the prices of that day, an exact fraction as text.
"""

from __future__ import annotations

import collections
import dataclasses
import fcntl
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from alignpre_jax.endpoints.question import Completion
from alignpre_jax.foundation import PathLike, UserError, disk_errors

_HEADER = {"format": "alignpre.completions", "version": 1}


class Cache:
    """A `Cache` keeps the completions of a file on disk and finds them by key.

    It is a context manager, and one process at a time holds it. A completion is on the disk before `add` returns. If a
    process was killed, the line that it left half written is cut off.

    Attributes:
      counts: "calls", "bounded_calls", "prompt_tokens" and "completion_tokens" of all completions.
      cost: the cost of all completions, in micro-dollars.

    Raises:
      UserError: another process holds the file, or it is not such a file.
    """

    def __init__(self, path: PathLike):
        self.path = os.fspath(path)
        self.counts: collections.Counter[str] = collections.Counter()
        self.cost = Fraction(0)
        self._places: dict[str, int] = {}
        with disk_errors(self.path):
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            self._file = open(self.path, "a+b")  # noqa: SIM115 (closed by __exit__)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._file.close()
            fix = "wait for it to end, or give another folder"
            raise UserError("another process writes to this folder", where=self.path, fix=fix) from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Completion | None:
        """Returns the completion of a request; None if it was not made."""
        if key not in self._places:
            return None
        self._file.seek(self._places[key])
        return _completion(json.loads(self._file.readline()))

    def add(self, key: str, role: str, completion: Completion, cost: Fraction) -> None:
        """Keeps a completion."""
        assert key not in self._places, "a completion is made once"
        self._append({"key": key, "role": role, **dataclasses.asdict(completion), "cost": str(cost)})

    def _append(self, record: Mapping[str, Any]) -> None:
        # ASCII: a text may hold half of a surrogate pair, which has no UTF-8.
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with disk_errors(self.path):
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        if record is not _HEADER:
            self._index(record, place)

    def _index(self, record: Mapping[str, Any], place: int) -> None:
        self._places[record["key"]] = place
        self.cost += Fraction(record["cost"])
        self.counts["calls"] += 1
        self.counts["bounded_calls"] += record["usage"] == "bounded"
        for name in ("prompt_tokens", "completion_tokens"):
            self.counts[name] += record[name]

    def _load(self) -> None:
        self._file.seek(0)
        place = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(place)  # half a line, whose writer was killed
                break
            try:
                record = json.loads(line)
                if (number == 1) != (record == _HEADER):
                    raise ValueError("not the format that this version writes")
                if number > 1:
                    self._index(record, place)
            except (ValueError, KeyError, TypeError) as error:
                where, fix = f"{self.path}:{number}", "delete the line, or give another folder"
                raise UserError(f"not a completion: {error}", where=where, fix=fix) from None
            place += len(line)
        if not place:
            self._append(_HEADER)


def _completion(record: Mapping[str, Any]) -> Completion:
    return Completion(**{field.name: record[field.name] for field in dataclasses.fields(Completion)})
