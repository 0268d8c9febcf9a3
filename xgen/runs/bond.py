"""A child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: the child is killed when this process ends. Call it, and start the child, in the main thread:
    the kernel means the thread that forked. An exec of a setuid program ends the bond."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the bond was made
            os._exit(1)

    return bind
