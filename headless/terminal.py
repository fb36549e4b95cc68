"""A terminal as the engine's host: progress and messages on stderr, Ctrl-C stops between two steps."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from ..acestep_core.host import Host


class BadRequest(Exception):
    """The command line asks for something that there is not."""


class StatusLine:
    """Progress for people. On a terminal one line that is rewritten, elsewhere a line a quarter of the way."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.live = stream.isatty()
        self.half_written, self.silent = False, False
        self.last: tuple[str, int] | None = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(("\r\x1b[K" if self.half_written else "") + text + "\n")
        self.half_written = False

    def progress(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total``; ``text`` begins with what is being done."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r" + text[:width] + "\x1b[K")
            self.half_written = True
            return
        mark = (text.split(":")[0], done * 4 // max(1, total))
        if mark != self.last:
            self.last = mark
            self.say(f"  {text}")

    def silence(self) -> None:
        """Say nothing from now on: another process speaks for all."""
        self.silent = True

    def close(self) -> None:
        """Leave the cursor on a fresh line."""
        if self.half_written:
            self._write("\n")
            self.half_written = False

    def _write(self, text: str) -> None:
        if self.silent:
            return
        with contextlib.suppress(OSError, ValueError):  # a closed stderr stops no song
            self.stream.write(text)
            self.stream.flush()


class TerminalHost(Host):
    """The :class:`Host` of the command line. Arguments as there; ``stop`` is set to stop the work."""

    name = "terminal"

    def __init__(self, *, stop: threading.Event | None = None, **folders_and_device):
        self.stop = stop or threading.Event()
        self.status = StatusLine(sys.stderr)
        super().__init__(**folders_and_device, on_progress=self.status.progress, should_stop=self.stop.is_set)

    def say(self, text: str) -> None:
        super().say(text)
        self.status.say(f"note: {text}")


@contextlib.contextmanager
def stopping_on_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """Within the block, the first Ctrl-C sets ``stop``; the second ends the process.

    Outside of the main thread, which alone may listen to signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first_press(signum, frame):
        stop.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping after this step. Press Ctrl-C again to quit at once.\n")

    before = signal.signal(signal.SIGINT, first_press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
