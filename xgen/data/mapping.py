"""Files as read-only arrays, without a file descriptor each.

`mmap` of the standard library, and so `np.memmap`, keeps a duplicate of the descriptor while the mapping lives: a store
of 10,000 parts would need 20,000 of them, where clusters commonly allow 1,024 to a process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def map_file(path: Path, dtype: DTypeLike, count: int) -> NDArray[Any]:
    """The first `count` numbers of a file [count], read-only; pages come from the disk when they are touched.

    A plain array: slicing np.memmap itself costs more than the slice. Raises OSError, and ValueError for a shorter
    file.
    """
    kind = np.dtype(dtype)
    size = count * kind.itemsize
    if size == 0:
        return np.empty(0, dtype=kind)
    fd = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(fd).st_size < size:
            raise ValueError(f"{path}: has fewer than {size} bytes")
        address = _libc().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Arrays made of it, and slices of those, keep it alive.
    unmap = weakref.finalize(memory, _libc().munmap, address, size)
    unmap.atexit = False  # threads may still be reading when the interpreter ends
    array: NDArray[Any] = np.frombuffer(memoryview(memory), dtype=kind)
    array.flags.writeable = False
    return array


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc
