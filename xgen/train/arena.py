"""Host memory that a rank's state is copied into, and that its writer process reads: one memfd, reused for each save.

A memfd and not /dev/shm: containers limit that to 64 MB unless told otherwise. The pages count as the rank's memory.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from typing import Any

import torch

_GROWTH = 64 << 20  # bytes: optimizer states appear at the first step, and little grows after it


class Arena:
    """Bytes that can grow. `bytes_U8` is all of it as a tensor; a view of it dies with the next `reserve`."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("xgen-checkpoint")
        self.bytes_U8 = torch.empty(0, dtype=torch.uint8)
        self.pinned = False
        self._preparing: threading.Thread | None = None

    def prepare(self, size: int) -> None:
        """Have the machine find `size` bytes meanwhile: zeroing them is most of what the first save would wait for."""
        self._preparing = threading.Thread(target=self._allocate, args=(size,), name="arena", daemon=True)
        self._preparing.start()

    def _allocate(self, size: int) -> None:
        # Without room there is nothing to prepare, and `reserve` says so.
        with suppress(OSError):
            os.posix_fallocate(self.fd, 0, max(1, size))

    def reserve(self, size: int) -> None:
        """Make room for `size` bytes. Raises OSError when the machine has not got them."""
        if size <= len(self.bytes_U8):
            return
        self._prepared()
        size = -(-size // _GROWTH) * _GROWTH
        self._unpin()
        # Allocated here and now: a page that is missing later is a SIGBUS in the middle of a copy.
        os.posix_fallocate(self.fd, 0, size)
        self.bytes_U8 = torch.frombuffer(mmap.mmap(self.fd, size), dtype=torch.uint8)
        self._pin()

    def put(self, offset: int, content: bytes) -> None:
        """Copy bytes into place; the room must be there."""
        if content:
            self.bytes_U8[offset : offset + len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)

    def _prepared(self) -> None:
        if self._preparing:
            self._preparing.join()
            self._preparing = None

    def close(self) -> None:
        """The writer's own mapping lives on until it is done."""
        self._prepared()
        self._unpin()
        self.bytes_U8 = torch.empty(0, dtype=torch.uint8)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _pin(self) -> None:
        """Page-lock it, so that the GPU copies into it by itself; without that the copies are right too, but slower."""
        if torch.cuda.is_available():
            address, size = self.bytes_U8.data_ptr(), len(self.bytes_U8)
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            self.pinned = int(runtime.cudaHostRegister(address, size, 0)) == 0

    def _unpin(self) -> None:
        if self.pinned:
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            runtime.cudaHostUnregister(self.bytes_U8.data_ptr())
            self.pinned = False
