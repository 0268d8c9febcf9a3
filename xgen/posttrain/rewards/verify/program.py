"""In the jail: an answer's program, alone with its input and output."""

from __future__ import annotations

import builtins
import os
import re
import sys
import threading
import types

NO_MEMORY = 3  # exit code
# A block of any language is read to its end, which is not taken for the beginning of another; or ```code``` in a line.
_FENCE = re.compile(r"(`{3,}+)(?:[^`\n]+\1|[ \t]*([^\s`]*)[^\n`]*\n(.*?)(?:\1|\Z))", re.DOTALL)
_PYTHON = ("python", "python3", "py")


def program_of(answer: str) -> str:
    """The last fenced block of Python after the reasoning, else the last without a name, which beside one of Python may
    be what it prints; else all of it."""
    answer = answer.rpartition("</think>")[2]
    blocks = [(found[2].lower(), found[3]) for found in _FENCE.finditer(answer) if found[3] is not None]
    for names in (_PYTHON, ("",)):
        if programs := [text for name, text in blocks if name in names]:
            return programs[-1]
    return answer


def keep_only(*kept: int) -> None:
    """File descriptors: these become 0, 1, …; all others are closed. Kept ones are above their new numbers."""
    for new, old in enumerate(kept):
        os.dup2(old, new, inheritable=True)
    os.closerange(len(kept), 1 << 16)


def run_script(source: str) -> None:
    """As `python FILE` would. Exits with its code; 1 for an exception, NO_MEMORY."""
    sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115 - lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.argv = ["answer.py"]
    code = 0
    try:
        exec(compile(source, "answer.py", "exec"), new_module("__main__").__dict__)
        threading._shutdown()  # type: ignore[attr-defined] # waits for its threads, as the interpreter does
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except MemoryError:
        code = NO_MEMORY
    except BaseException as error:  # noqa: BLE001
        code = 1
        sys.stderr.write(f"{type(error).__name__}: {error!s:.200}\n")
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def new_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module
