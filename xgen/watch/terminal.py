"""Frames on a terminal that lives, or one where there is none."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from xgen.watch.screen import Screen


def show_once(screen: Screen) -> None:
    """One frame; where it is no terminal it has all runs."""
    size = shutil.get_terminal_size()
    height = size.lines if sys.stdout.isatty() else 10_000
    console = Console(width=size.columns, highlight=False)
    console.print(screen.frame(size.columns, height, unicode=_has_unicode()), soft_wrap=False)


def show_live(screen: Screen, every: float, between: Callable[[], None]) -> None:
    """Until Ctrl-C; a window that changes its size is drawn anew at once. `between` is called after each frame."""
    console = Console(highlight=False)
    changed, change = os.pipe()
    for end in (changed, change):
        os.set_blocking(end, False)
    # Python calls a handler between two of its steps: one whose signal came just before `select`, or to another
    # thread, would wait until that returns. What the interpreter itself writes at once wakes it.
    signal.set_wakeup_fd(change, warn_on_full_buffer=False)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                # Asked anew: of $COLUMNS and $LINES, where a shell exports them, rich believes that they hold for ever.
                width, height = console.size = os.get_terminal_size(sys.stdout.fileno())
                live.update(screen.frame(width, height, unicode=_has_unicode(), leaves=True), refresh=True)
                between()
                if select.select([changed], [], [], every)[0]:
                    os.read(changed, 1 << 12)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(changed)
        os.close(change)


def _has_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
