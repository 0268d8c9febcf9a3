"""What the commands share: options, loading and checking a spec, finding a run, saying what went wrong."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from xgen.cli import completion

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.spec import LoadedJob, Profile, Regmix, Work

EXIT_USAGE = 2
EXIT_SCHEDULER = 3
EXIT_REMOTE = 4

SpecArgument = Annotated[Path, typer.Argument(help="A job spec (YAML).", metavar="SPEC", show_default=False)]
RunArgument = Annotated[
    str, typer.Argument(help="A run: its name, or its first letters.", metavar="RUN", autocompletion=completion.runs)
]
OverBudgetOption = Annotated[
    bool,
    typer.Option(
        "--over-budget", help="Submit although the project has fewer GPU-hours or bytes left than this asks for."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key, e.g. resources.nodes=4 or stages.0.lr.peak=1e-4.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Cluster profile: a name or a file. Default: the spec's, else $XGEN_CLUSTER.",
        autocompletion=completion.clusters,
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Container runtime instead of the profile's: none, pyxis, enroot, docker, podman, apptainer, "
        "singularity, charliecloud.",
    ),
]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Processes; 0: one for each core.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def fail(error: BaseException) -> NoReturn:
    """Print what is wrong to stderr and leave: 2 for a mistake in a spec or a call, 3 for the scheduler, 4 for a
    cluster that is not reached."""
    from xgen.cluster.slurm import SchedulerError
    from xgen.remote.faults import RemoteError
    from xgen.spec import SpecError

    if isinstance(error, RemoteError):
        print(error, file=sys.stderr)
        sys.exit(EXIT_REMOTE)
    if isinstance(error, SpecError):
        print(error, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    if isinstance(error, SchedulerError):
        print(f"the scheduler: {error}", file=sys.stderr)
        sys.exit(EXIT_SCHEDULER)
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    raise error


def usage(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(EXIT_USAGE)


def load_checked(
    spec: Path, overrides: list[str] | None, cluster: str | None, runtime: str | None = None, *, stores: bool = True
) -> tuple[LoadedJob, str, Profile]:
    """Read a spec and the profile of its cluster, and check that they make sense together. Raises SpecError."""
    from xgen.plan import check
    from xgen.spec import SpecError, find_profile, load_job, load_profile, with_runtime

    loaded = load_job(spec, overrides or [])
    name, file = find_profile(cluster or loaded.job.cluster, loaded.root)
    profile = load_profile(file)
    if runtime is not None:
        profile = with_runtime(profile, runtime)
    problems = check(loaded, profile, stores=stores)
    if problems:
        raise SpecError(*problems)
    return loaded, name, profile


def each_point(loaded: LoadedJob) -> Iterator[LoadedJob]:
    """The points of a sweep, and of any other work that alone. Raises SpecError."""
    from xgen.spec import SpecError, Sweep

    if not isinstance(loaded.job, Sweep):
        yield loaded
        return
    from xgen.spec.points import points

    for point in points(loaded):
        if isinstance(point, SpecError):
            raise point
        yield point


def check_init(loaded: LoadedJob, profile: Profile) -> None:
    """Raises SpecError where the run that a post-training begins with has no complete checkpoint, or not this one."""
    from xgen.runs import Refused, RunDir
    from xgen.spec import SpecError, Tuned

    if not isinstance(loaded.job, Tuned) or loaded.job.init.run is None:
        return
    from xgen.train.source import complete_ones

    try:
        complete_ones(RunDir(Path(profile.run_root) / loaded.job.init.run), loaded.job.init.step, "init.run")
    except Refused as error:
        key, _, said = str(error).partition(": ")
        raise SpecError(loaded.problem(key, said)) from None


def check_mixture(job: Work) -> list[dict[str, Any]]:
    """Each part of the mixture of each stage of a training: its share and tokens, and the epochs of it that are seen
    until the stage's end. Raises SpecError where the stores cannot give it: a part that is not there, or would be seen
    too often."""
    from xgen.spec import Pretrain, Problem, Regmix, SpecError

    if isinstance(job, Regmix):
        return _check_proxies(job)
    if not isinstance(job, Pretrain) or job.data.packing == "none":
        return []
    from xgen.data import StoreError, check_vocabulary, mixtures_for, read_meta

    try:
        metas = {name: read_meta(Path(folder)) for name, folder in job.data.folders.items()}
        check_vocabulary(job, metas)
        mixtures = mixtures_for(job, metas)
    except StoreError as error:
        raise SpecError(Problem("", "data", str(error))) from None
    rows = []
    for stage, mixture in zip(job.stages, mixtures, strict=True):
        tokens = stage.num_tokens
        for part, quota, epochs in zip(mixture.components, mixture.quotas(tokens), mixture.epochs(tokens), strict=True):
            facts = {"share": quota / tokens, "tokens": quota, "epochs": epochs, "has": part.num_tokens}
            rows.append({"stage": stage.name, "name": part.name, **facts})
    return rows


def _check_proxies(job: Regmix) -> list[dict[str, Any]]:
    """Each domain that proxies are drawn of: its least and greatest share of a proxy, and its share of the corpus."""
    from xgen.data import StoreError
    from xgen.data.curate.proxies import proxies_of
    from xgen.spec import Problem, SpecError

    try:
        proxies = proxies_of(job)
    except StoreError as error:
        raise SpecError(Problem("", "proxies", str(error))) from None
    whole = sum(proxies.corpus.values())
    return [
        {"stage": "proxies", "name": name, "share": tokens / whole, "has": tokens, "drawn": [min(drawn), max(drawn)]}
        for name, tokens in proxies.corpus.items()
        for drawn in [[proxy.weights[name] for proxy in proxies.all]]
    ]


def watch_it(cluster: str | None, *commands: str) -> str:
    """The lines that say what to write next. `cluster`: the name or file that this command was given, which the next
    one needs too, where $XGEN_CLUSTER does not say it."""
    from xgen.cli.remote import here

    option = "" if cluster in (None, os.environ.get("XGEN_CLUSTER")) else f" --cluster {cluster}"
    return "watch it:   " + f"\n{' ' * 12}".join(f"{here(command)}{option}" for command in commands)


def run_root(cluster: str | None) -> Path:
    """Where the runs of a cluster lie."""
    from xgen.spec import find_profile, load_profile

    return Path(load_profile(find_profile(cluster, Path.cwd())[1]).run_root)


def find_run(text: str, cluster: str | None) -> RunDir:
    """The run that `text` names: a folder, a name, with or without its last six characters, or the beginning of one.
    Leaves with exit code 2 otherwise."""
    from xgen.runs import RunDir, list_runs

    if "/" in text:
        run = RunDir(Path(text).resolve())
        if run.spec_file.is_file():
            return run
        usage(f"{text} is no run directory; it has no spec.yaml")
    root = run_root(cluster)
    runs = list_runs(root)
    # `diamond` is diamond-k3f9ab, and no step of it.
    found = (
        [run for run in runs if run.name == text]
        or [run for run in runs if run.name.rpartition("-")[0] == text]
        or [run for run in runs if text and run.name.startswith(text)]
    )
    if len(found) == 1:
        return found[0]
    if found:
        usage(f"{text} is the beginning of {len(found)} runs; write one of {', '.join(r.name for r in found[-8:])}")
    if not runs:
        usage(f"no run {text!r}: {no_runs(root)}")
    usage(f"no run {text or repr(text)} in {root}; the newest are: {', '.join(r.name for r in runs[-8:])}")


def no_runs(root: Path) -> str:
    """Of an empty run root; a folder that is not there may be a wrong word in the profile, or not mounted."""
    return f"no runs in {root}{'' if root.is_dir() else ', which is not there yet'}; write xgen submit SPEC"


def find_checkpoint(text: str, cluster: str | None) -> tuple[RunDir, int | None]:
    """Run and step of `RUN@STEP`; None where no step is named. Leaves with exit code 2 otherwise."""
    name, at, step = text.rpartition("@")
    if "/" in step:  # the sign is in the path, and no step is named
        at = ""
    if at and not step.isdecimal():
        usage(f"{text}: {step!r} is no step; write RUN@STEP, e.g. {name}@500")
    return find_run(name if at else text, cluster), int(step) if at else None


def printable(text: str) -> str:
    """What a model or a data set wrote, so that no terminal obeys it; ends of lines stay."""
    return re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def print_json(value: Any) -> None:
    def encode(item: Any) -> Any:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        return str(item)

    print(json.dumps(value, default=encode, indent=2))
