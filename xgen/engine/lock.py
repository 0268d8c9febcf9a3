"""A lock that is not taken again by whoever has just let it go while another waits for it."""

from __future__ import annotations

import threading


class FairLock:
    """To be had by `with`, once a thread. Whoever waits stands in the door: who comes back comes after."""

    def __init__(self) -> None:
        self._door, self._lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
