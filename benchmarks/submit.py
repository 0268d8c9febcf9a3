"""What a submission and a container's start cost: `python -m benchmarks.submit [--json] [--rounds N] [--starts N]`.

Needs a cluster (`slurm/dev/up`, or --cluster FILE). All figures are taken in turn, round by round. The checkout that is
submitted is a copy of this one, so that nobody edits it meanwhile. Every job is cancelled right after its submission
was timed; whatever is left, also on Ctrl-C, is cancelled in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from submitit import SlurmExecutor

from benchmarks.common import ROOT, Figure, Result
from xgen.cluster import slurm
from xgen.cluster.prepare import Prepared, prepare
from xgen.cluster.snapshot import inspect_code
from xgen.cluster.submit import submit
from xgen.runs import RunDir, read_events
from xgen.spec import LoadedJob, Profile, RuntimeName, SpecError, dump, load_job, load_profile, with_runtime

GOALS = {"in process - sbatch": 0.05, "xgen submit": 0.5}
SPEC = "jobs/tiny/hello.yaml"
COLD_RUNS = 5
PROGRAMS: dict[RuntimeName, str] = {
    "none": "srun",
    "charliecloud": "ch-run",
    "podman": "podman",
    "docker": "docker",
    "apptainer": "apptainer",
    "enroot": "enroot",
}
_START_TIMEOUT = 180  # seconds; the first start of an image loads it


@dataclass(frozen=True)
class SubmitResult(Result):
    """`skipped` says why a runtime was not measured."""

    skipped: Mapping[str, str]

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if not as_json:
            for name, reason in self.skipped.items():
                print(f"start, {name}: skipped, {reason}")


@dataclass(frozen=True)
class Bench:
    """A checkout, a profile and a prefix of job names that are this measurement's own."""

    folder: Path
    checkout: Path
    profile: Profile
    prefix: str

    def load(self, *overrides: str) -> LoadedJob:
        return load_job(self.checkout / SPEC, [f"name={self.prefix}", *overrides])

    def prepare(self, loaded: LoadedJob, profile: Profile | None = None) -> Prepared:
        return prepare(loaded, "benchmark", profile or self.profile)


def measure(cluster: Path, num_rounds: int, num_starts: int) -> SubmitResult:
    """Raises SchedulerError where no SLURM answers, SpecError for a profile that is none."""
    slurm.queue()
    with _bench(cluster) as bench:
        submissions = _measure_submissions(bench, num_rounds)
        starts, skipped = _measure_starts(bench, num_starts) if num_starts else ({}, {})
    seconds = submissions | starts
    seconds["in process - sbatch"] = _differences(seconds, "in process", "sbatch")
    for name in [name for name in starts if name.startswith("start, ") and name != "start, none"]:
        seconds[f"{name} - none"] = _differences(seconds, name, "start, none")
    figures = {name: Figure.of(taken) for name, taken in seconds.items()}
    peers = {name: figures.pop(name) for name in list(figures) if name.startswith(("sbatch", "submitit", "srun"))}
    return SubmitResult("submit", figures, peers, GOALS, skipped)


def _differences(seconds: Mapping[str, Sequence[float]], ours: str, base: str) -> list[float]:
    """Paired by round: a busy moment of the machine is in both."""
    return [a - b for a, b in zip(seconds[ours], seconds[base], strict=True)]


@contextmanager
def _bench(cluster: Path) -> Iterator[Bench]:
    prefix = f"bench-{secrets.token_hex(3)}"
    profile = load_profile(cluster)
    (ROOT / ".cache").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=ROOT / ".cache"))  # ignored by git, on the checkout's disk
    try:
        checkout = _copy_checkout(folder / "checkout")
        profile = profile.model_copy(update={"run_root": str(folder / "runs")})
        yield Bench(folder, checkout, profile, prefix)
    finally:
        _cancel_all(prefix)
        for place in Path(profile.container.image_dir or "/nonexistent").glob(f"*/{folder.relative_to('/')}"):
            shutil.rmtree(place)  # mount points, made in images that are folders
        shutil.rmtree(folder)


def _copy_checkout(target: Path) -> Path:
    """This checkout with its changes, at its commit, with its times: git looks at them."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    here = inspect_code(ROOT)
    for name in inspect_code(target).files:
        if name not in here.files:
            (target / name).unlink()
    for name in here.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if name in here.changed:
            (target / name).unlink(missing_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
        elif not (target / name).is_symlink():
            shutil.copystat(ROOT / name, target / name)
    subprocess.run(["git", "-C", str(target), "status"], check=True, capture_output=True)  # git notes the times
    return target


def _cancel_all(prefix: str) -> None:
    """Until none is in the queue: a job that ends still writes to its run directory."""
    deadline = time.monotonic() + 60
    while left := [row.job_id for row in slurm.queue() if row.name.startswith(prefix)]:
        if time.monotonic() > deadline:
            print(f"still in the queue; write: scancel {' '.join(left)}", file=sys.stderr)
            return
        slurm.command("scancel", *left)
        time.sleep(0.2)


def _measure_submissions(bench: Bench, num_rounds: int) -> dict[str, list[float]]:
    loaded = bench.load()
    request = [line for line in bench.prepare(loaded).scripts[0].splitlines() if line.startswith("#SBATCH ")]
    script = bench.folder / "bare.sh"
    script.write_text("\n".join(["#!/bin/bash", *request, "srun true"]) + "\n")
    profile = bench.folder / "profile.yaml"
    profile.write_text(dump(bench.profile))
    xgen = [str(Path(sys.executable).with_name("xgen")), "submit", SPEC, f"--set=name={bench.prefix}"]
    xgen += [f"--cluster={profile}"]
    executor = _submitit(bench, loaded)

    def in_process(prepared_for: Profile | None = None) -> str:
        return submit(bench.prepare(loaded, prepared_for))[0][0]

    def ours() -> str:
        job_id: str = json.loads(_output(bench, [*xgen, "--json"]))["job_id"]
        return job_id

    def dry_run() -> None:
        _output(bench, [*xgen, "--dry-run"])

    def submitit() -> str:
        return executor.submit(int).job_id

    def cold() -> str:
        return in_process(bench.profile.model_copy(update={"run_root": tempfile.mkdtemp(dir=bench.folder)}))

    measured: dict[str, Callable[[], str | None]] = {
        "sbatch": lambda: _output(bench, ["sbatch", "--parsable", str(script)]).strip(),
        "in process": in_process,
        "xgen submit": ours,
        "xgen submit --dry-run": dry_run,
        "submitit": submitit,
        "submitit, next within 0.2 s": submitit,  # which is its own throttle
    }
    in_process()  # imports what the first one imports
    seconds = {"in process, cold snapshot": [_timed_job(cold) for _ in range(COLD_RUNS)]}
    return seconds | _in_turn({name: partial(_timed_job, action) for name, action in measured.items()}, num_rounds)


def _output(bench: Bench, command: Sequence[str]) -> str:
    """What a command prints. Python finds bytecode, as where it is installed, even if this environment forbids it."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode")}
    return subprocess.run(
        command, cwd=bench.checkout, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ).stdout


def _submitit(bench: Bench, loaded: LoadedJob) -> SlurmExecutor:
    """The same request in submitit's words."""
    resources = loaded.job.resources
    gpus = {"gpus_per_node": resources.gpus_per_node} if bench.profile.gpus.request == "gpus-per-node" else {}
    executor = SlurmExecutor(bench.folder / "submitit")
    executor.update_parameters(
        job_name=bench.prefix,
        partition=resources.partition or bench.profile.default_partition,
        nodes=resources.nodes,
        ntasks_per_node=resources.gpus_per_node,
        time=resources.time // 60,
        **gpus,
    )
    return executor


def _timed_job(action: Callable[[], str | None]) -> float:
    """Seconds of a submission; its job is cancelled before it can run."""
    began = time.perf_counter()
    job_id = action()
    taken = time.perf_counter() - began
    if job_id:
        slurm.cancel(job_id)
    return taken


def _in_turn(actions: Mapping[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds by name, in rounds; one more before that warms the caches and is not counted."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(num_rounds + 1):
        for name, action in actions.items():
            taken = action()
            if turn:
                seconds[name].append(taken)
    return dict(seconds)


def _measure_starts(bench: Bench, num_starts: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """From the batch script's first event to the first line of ours in the container, by runtime; and the reasons why
    a runtime is not among them."""
    loaded = bench.load('command=["true"]', "resources.gpus_per_node=1")
    request = [f"--partition={loaded.job.resources.partition or bench.profile.default_partition}", "--ntasks=1"]
    request += [f"--job-name={bench.prefix}", "--time=5"]
    step = 'began=$EPOCHREALTIME; srun true; echo "$began $EPOCHREALTIME"'

    def srun() -> float:
        began = time.perf_counter()
        _output(bench, ["srun", "--quiet", *request, "true"])
        return time.perf_counter() - began

    def srun_step() -> float:
        began, ended = _output(bench, ["salloc", "--quiet", *request, "bash", "-c", step]).split()
        return float(ended) - float(began)

    def start_with(profile: Profile) -> float:
        for _ in range(3):
            seconds = _start(bench.prepare(loaded, profile))
            if seconds is not None:
                return seconds
        raise NotStartedError("somebody cancelled the job before it started, three times")

    actions: dict[str, Callable[[], float]] = {"srun true": srun, "srun true, in an allocation": srun_step}
    skipped: dict[str, str] = {}
    for runtime, program in PROGRAMS.items():
        if shutil.which(program) is None:
            skipped[runtime] = f"{program} is not on PATH"
            continue
        profile = with_runtime(bench.profile, runtime)
        try:
            start_with(profile)
        except (SpecError, NotStartedError) as error:
            skipped[runtime] = str(error)
            continue
        actions[f"start, {runtime}"] = partial(start_with, profile)
    return _in_turn(actions, num_starts), skipped


class NotStartedError(Exception):
    """The run ended, or time did, before the container was ready."""


def _start(prepared: Prepared) -> float | None:
    """Run a job to its end. Seconds from `started` to `container_ready`, None when somebody cancelled it before.

    Raises NotStartedError.
    """
    job_id, _ = submit(prepared)
    deadline = time.monotonic() + _START_TIMEOUT
    times: dict[str, float] = {}
    while not {"finished", "failed", "cancelled"} & times.keys():
        if time.monotonic() > deadline:
            slurm.cancel(job_id)
            raise NotStartedError(f"job {job_id} was not through after {_START_TIMEOUT} s")
        time.sleep(0.1 if "started" in times else 0.5)
        queued = "started" in times or any(row.job_id == job_id for row in slurm.queue())
        times = {event.event: event.time for event in read_events(prepared.run)}
        if not queued and "started" not in times:
            return None
    if "container_ready" not in times:
        raise NotStartedError(_last_error(prepared.run))
    return times["container_ready"] - times["started"]


def _last_error(run: RunDir) -> str:
    lines = [line for path in sorted(run.attempts_dir.glob("*/err.log")) for line in path.read_text().splitlines()]
    said = [line for line in lines if not line.startswith(("srun: ", "xgen: "))]
    return (said or lines or ["the run said nothing"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=20, help="submissions of each kind (20)")
    parser.add_argument("--starts", type=int, default=5, help="starts of each container runtime (5); 0 leaves them out")
    parser.add_argument("--cluster", type=Path, default=ROOT / "slurm/clusters/dev.yaml", help="a profile (dev.yaml)")
    options = parser.parse_args()
    try:
        result = measure(options.cluster, options.rounds, options.starts)
    except (SpecError, slurm.SchedulerError, NotStartedError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    result.print(options.json)
    return 0 if all(result.met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
