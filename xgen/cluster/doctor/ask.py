"""Asks the nodes, by a script of bash that srun hands them: nothing need be shared. Without SLURM it runs here."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import slurm
from xgen.cluster.checks import checks_text
from xgen.cluster.doctor.facts import Answer, read_facts
from xgen.cluster.doctor.programs import PROGRAMS
from xgen.cluster.doctor.storage import try_lock
from xgen.cluster.render import interpreter
from xgen.spec import Mount, Profile

_MINUTES = 10  # the job's own limit
_SIGHT = 10.0  # seconds until what a node has written is seen here: NFS may be so late


@dataclass(frozen=True)
class Question:
    """What to ask for and about. `images`, `inputs`: paths that the nodes must be able to read."""

    nodes: int
    partition: str
    account: str | None = None
    images: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    inputs: tuple[str, ...] = ()


def ask_nodes(profile: Profile, asked: Question, timeout: float, say: Callable[[str], None]) -> Answer:
    """`timeout` is in seconds and covers the queue."""
    with _token(Path(profile.run_root)) as (token, word, locked):
        script = node_script(profile, asked, token.name if token else "", word)
        began = time.time()
        if profile.scheduler == "local":
            lines, error, timed_out = _run(["bash", "-c", script], timeout, lambda: None)
        else:
            name = f"doctor-{secrets.token_hex(3)}"
            say(
                f"asking {asked.nodes} nodes of {asked.partition} by job {name}, at most {timeout:.0f} s with the queue"
            )
            command = [*_srun(profile, asked, name), "bash", "-c", script]
            lines, error, timed_out = _run(command, timeout, lambda: _cancel(name))
        nodes = read_facts(lines)
        ended = time.time()
        wrote = [one.node for one in nodes if one.said.get("run_root") == "same"]
        seen = _seen(token, word, wrote) if token else []
        return Answer(nodes, (began, ended), tuple(seen), locked, error, timed_out)


def node_script(profile: Profile, asked: Question, token: str, word: str) -> str:
    boxed = profile.container.runtime != "none"
    mounts = [mount.source for mount in (*profile.container.mounts, *asked.mounts)]
    settings = {
        "RUN_ROOT": profile.run_root,
        "TOKEN": token,
        "WORD": word,
        "IMAGES": "\n".join(asked.images),
        "PYTHON": "" if boxed else interpreter(profile),
        "MOUNTS": "\n".join(mounts) if boxed else "",
        "INPUTS": "\n".join(asked.inputs),
        "PROGRAMS": " ".join(PROGRAMS[profile.container.runtime]),
        "PYXIS": "1" if profile.container.runtime == "pyxis" else "",
        "CHECK_LIMIT": 60,
        "NUM_GPUS": 0 if profile.gpus.request == "none" else 1,
        "GPU_FILES": profile.gpus.devices or "",
        "TMP_WANTED": profile.nodes.tmp,
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in profile.env.items()]
    text = Path(__file__).with_name("node.sh").read_text(encoding="utf-8")
    return "\n".join(
        [
            'export LC_ALL=C USER="${USER:-$(id -un)}"  # ch-run says nothing without it',
            *lines,
            checks_text(),
            text,
            "tell",
        ]
    )


def _srun(profile: Profile, asked: Question, name: str) -> list[str]:
    kind = f"{profile.gpus.type}:" if profile.gpus.type else ""
    gpus = {"gpus-per-node": [f"--gpus-per-node={kind}1"], "gres": [f"--gres=gpu:{kind}1"], "none": []}
    return [
        "srun",
        "--quiet",
        f"--job-name={name}",
        f"--partition={asked.partition}",
        f"--nodes={asked.nodes}",
        "--ntasks-per-node=1",
        f"--time={_MINUTES}",
        "--chdir=/",
        *([f"--account={asked.account}"] if asked.account else []),
        *gpus[profile.gpus.request],
        *profile.srun_args,
    ]


def _run(command: Sequence[str], timeout: float, cancel: Callable[[], None]) -> tuple[list[str], str, bool]:
    """Lines of its output, the first of what it said is wrong, and whether it ran out of time."""
    environment = {name: os.environ[name] for name in slurm.FROM_CLIENT if name in os.environ}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env=environment,
    )  # fmt: skip
    timed_out = False
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        cancel()
        process.terminate()
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
    except BaseException:
        cancel()
        process.kill()
        process.wait()
        raise
    said = [line for line in err.splitlines() if line.strip()]
    error = next((line for line in said if "error:" in line), said[0] if said else "")
    return out.splitlines(), error.removeprefix("srun: error: ").strip(), timed_out


def _cancel(name: str) -> None:
    with suppress(slurm.SchedulerError):  # it has ended
        slurm.cancel(name)


@contextmanager
def _token(root: Path) -> Iterator[tuple[Path | None, str, bool]]:
    """A file in the run root with a word in it, and whether this process holds its lock; None where it cannot be
    written. What nodes write beside it goes with it, and so does a run root that was made for it."""
    token, word = root / f".doctor-{secrets.token_hex(6)}", secrets.token_hex(8)
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        try:
            root.mkdir(parents=True, exist_ok=True)
            token.write_text(word + "\n")
        except OSError:  # which is found already
            yield None, word, False
            return
        with token.open("r+") as file:
            yield token, word, not try_lock(file.fileno())
    finally:
        with suppress(OSError):
            for written in (token, *root.glob(f"{token.name}.*")):
                written.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # somebody else uses it now
                folder.rmdir()


def _seen(token: Path, word: str, nodes: Sequence[str]) -> list[str]:
    """Those whose file beside the token is there, once it is, or the time is over."""
    deadline = time.monotonic() + _SIGHT
    while True:
        seen = [node for node in nodes if _holds(token.with_name(f"{token.name}.{node}"), word)]
        if len(seen) == len(nodes) or time.monotonic() > deadline:
            return seen
        time.sleep(0.2)


def _holds(file: Path, word: str) -> bool:
    try:
        return file.read_text().strip() == word
    except OSError:
        return False
