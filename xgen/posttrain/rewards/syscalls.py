"""A filter of system calls (seccomp), which every kernel gives to every user: what no verifier needs is refused."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# (x86_64, aarch64)
_NETWORK = {"socket": (41, 198)}  # socketpair stays
_SIGNALS = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
}  # fmt: skip
# Memory that is no process's, so that no limit counts it.
_HIDDEN_MEMORY = {"shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "memfd_create": (319, 279)}
_DANGEROUS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "io_uring_setup": (425, 425),
    "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "pidfd_getfd": (438, 438), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "pivot_root": (155, 41),
    "umount2": (166, 39), "chroot": (161, 51),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), 435
# Namespaces of its own, in which it would be root. Those of clone3 lie in memory, where no filter sees them: it is said
# not to be there, and the C library takes clone.
_NEW_NAMESPACES = 0x7E020000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
_ALLOW, _REFUSE, _NOT_THERE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_AT_NUMBER, _AT_MACHINE, _AT_FLAGS = 0, 4, 16  # offsets in struct seccomp_data; the low half of the first argument
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # another numbering of the same calls
_SET_SECCOMP, _FILTER = 22, 2


def refuse(network: bool, signals: bool) -> None:
    """For this process and its children, for good: always what reaches into other processes or the kernel, and memory
    that nobody counts; also sockets, also signals, to itself too. Needs no_new_privs. Raises OSError."""
    program = _program(
        {**_DANGEROUS, **_HIDDEN_MEMORY, **(_NETWORK if network else {}), **(_SIGNALS if signals else {})}
    )
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_SECCOMP, _FILTER, head, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def can_refuse() -> bool:
    """Tried in a fork."""
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no_new_privs
            refuse(network=True, signals=True)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _program(calls: dict[str, tuple[int, int]]) -> bytes:
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, platform.machine())
    column, machine = _MACHINES[platform.machine()]
    numbers = sorted({call[column] for call in calls.values()})
    lines = [(_LOAD, 0, 0, _AT_MACHINE), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _AT_NUMBER)]
    lines += [(_AT_LEAST, len(numbers) + 5, 0, _X32)]
    lines += [(_EQUAL, len(numbers) + 4 - at, 0, number) for at, number in enumerate(numbers)]
    lines += [(_EQUAL, 5, 0, _CLONE3), (_EQUAL, 0, 2, _CLONE[column])]
    lines += [(_LOAD, 0, 0, _AT_FLAGS), (_ANY_BIT, 1, 0, _NEW_NAMESPACES)]
    lines += [(_RETURN, 0, 0, said) for said in (_ALLOW, _REFUSE, _NOT_THERE)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
