"""Keys of a terminal as they are typed. Knows no ROS.

The terminal gives keys at once and does not show them, until ``close``; Ctrl-C still ends the
program, and Ctrl-Z does not stop it: an operator who is suspended could not stop a robot.
"""

import atexit
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from smac_core.errors import InputError

_SEQUENCES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b[5~": "page_up", "\x1b[6~": "page_down",
    " ": "space", "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace",
    "\x1b": "escape",
}  # fmt: skip
_KEY = re.compile("\x1b\\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|.", re.DOTALL)
_AWAKE = 0.2  # s between two looks at whether to end


def keys(text: str) -> Iterator[str]:
    """Names of the keys that a terminal has sent ``text`` for; others are left out."""
    for sequence in _KEY.findall(text):
        name = _SEQUENCES.get(sequence, sequence)
        if name in _SEQUENCES.values() or (len(name) == 1 and name.isprintable()):
            yield name


class Keyboard:
    """The terminal on standard input, read by a thread of its own.

    Args:
        pressed: called in that thread with a key's name.
        gone: called in that thread when the terminal has closed.

    Raises:
        InputError: standard input is no terminal, or another program's.
    """

    def __init__(self, pressed: Callable[[str], None], gone: Callable[[], None]):
        import termios

        self._pressed, self._gone = pressed, gone
        try:
            self._terminal = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._terminal)
        except (AttributeError, ValueError, OSError, termios.error):
            expected = "a terminal: start the operator in one of its own, with smac operator"
            raise InputError("keyboard", "standard input", "no terminal", expected) from None
        if os.tcgetpgrp(self._terminal) != os.getpgrp():
            found = "a terminal that another program reads"
            expected = "one in whose foreground the operator runs: smac operator"
            raise InputError("keyboard", "standard input", found, expected)
        self._open = True
        atexit.register(self.close)
        after = termios.tcgetattr(self._terminal)
        after[3] &= ~(termios.ICANON | termios.ECHO)
        after[6][termios.VMIN], after[6][termios.VTIME] = 1, 0
        after[6][termios.VSUSP] = os.fpathconf(self._terminal, "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, after)
        self._thread = threading.Thread(target=self._read, name="keyboard", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._open:
            try:
                ready, _, _ = select.select([self._terminal], [], [], _AWAKE)
                data = os.read(self._terminal, 1024) if ready else None
            except OSError:
                data = b""
            if data == b"":
                if self._open:
                    self._gone()
                return
            for key in keys(data.decode(errors="ignore")) if data else ():
                self._pressed(key)

    def close(self) -> None:
        """The terminal as it was before."""
        import termios

        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)
