"""A request to stop is acted on at a moment that loses nothing."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequested:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one interrupts at once.

    Outside of the main thread, which alone can handle signals, it does nothing.

    Attributes:
      asked: whether a signal came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequested:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True
