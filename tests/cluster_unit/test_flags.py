"""Every flag that is rendered stands in the recorded help of a named version of the program that reads it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Program, as it stands in the script, the recorded helps it is held against, flags that work and are not in the help.
PROGRAMS: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "pyxis": ("srun", ("pyxis-2024-07", "pyxis-0619349"), set()),
    "enroot start": ("enroot start", ("enroot-start-3.x",), set()),
    "enroot create": ("enroot create", ("enroot-create-3.x",), set()),
    "enroot import": ("enroot import", ("enroot-import-3.x",), set()),
    "docker": ("docker run", ("docker-run-20.10", "docker-run-28.2"), set()),
    "podman": ("podman run", ("podman-run-4.3.1", "podman-run-5.4.2"), set()),
    "apptainer": ("apptainer exec", ("apptainer-exec-1.4.5",), {"--pwd"}),  # hidden since 1.3, when --cwd came
    # The recorded help is from 2021; --no-eval came with SingularityCE 3.10.
    "singularity": ("singularity exec", ("singularity-exec-41befa9",), {"--no-eval"}),
    "charliecloud": ("ch-run", ("charliecloud-0.31",), set()),
}
# srun's own, which the batch script shares with every runtime.
SRUN = {"--export", "--kill-on-bad-exit", "--label", "--unbuffered", "--gpu-bind", "--mpi", "--chdir", "--overlap"}
SRUN |= {"--ntasks", "--ntasks-per-node"}


def commands(program: str) -> list[list[str]]:
    """The words of each call of the program in all golden scripts."""
    found = []
    for file in sorted((HERE / "golden").glob("*.sh")):
        text = re.sub(r" *\\\n *", " ", file.read_text(encoding="utf-8"))
        for line in text.splitlines():
            place = re.search(rf"(?:^|\s){re.escape(program)}\s", line)
            if place and not line.lstrip().startswith("#"):
                found.append(shlex.split(line[place.end() :]))
    return found


def flags(words: list[str]) -> set[str]:
    """Long flags before the program that the container runs."""
    used = set()
    for word in words:
        if word in ("python3", "--"):
            break
        if word.startswith("--"):
            used.add(word.partition("=")[0])
    return used


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_flag_is_in_the_help_of_every_recorded_version(name: str) -> None:
    program, helps, hidden = PROGRAMS[name]
    calls = commands(program)
    used = set().union(*map(flags, calls)) - SRUN - hidden
    if program == "srun":
        used = {flag for flag in used if "container" in flag}
    assert used, f"no golden script calls {program}"
    for recorded in helps:
        text = (HERE / "help" / f"{recorded}.txt").read_text(encoding="utf-8")
        known = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))
        assert used <= known, f"{recorded} does not know {sorted(used - known)}"


def test_a_made_up_flag_would_be_noticed() -> None:
    assert flags(["--rm", "--invented=1", "image", "python3", "--later"]) == {"--rm", "--invented"}
