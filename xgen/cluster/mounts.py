"""What of the host is in the container."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xgen.runs import RunDir
from xgen.runs.origin import read_beginning
from xgen.spec import (
    Curate,
    Evaluate,
    Export,
    Job,
    Mount,
    Preference,
    Pretrain,
    Profile,
    Regmix,
    Sft,
    Sweep,
    Tuned,
    load_resolved,
)
from xgen.spec.points import jobs_of


def all_mounts(job: Job, profile: Profile, run: RunDir) -> tuple[Mount, ...]:
    """What every job needs (its run directory with the code in it read-only, the folder in which it announces itself
    to Prometheus, the token stores or the run that it reads), then what the cluster needs, then the spec's own; the
    last word on a target counts."""
    needed = [
        Mount(source=str(run.path)),
        Mount(source=str(run.code_dir), read_only=True),
        Mount(source=str(run.discovery_file.parent)),
    ]
    for one in jobs_of(job) if isinstance(job, Sweep) else [job]:
        needed += _of_work(one, run)
    written = [m for m in needed if not m.read_only]  # a file that is read may lie in a folder that is written
    by_target = {m.place: m for m in (*needed, *written, *profile.container.mounts, *job.container.mounts)}
    return tuple(by_target.values())


def inputs_of(job: Job, profile: Profile) -> tuple[str, ...]:
    """What the work reads that is there on this machine: its nodes must see it too."""
    run = RunDir(Path(profile.run_root) / job.name)
    needed = [mount for one in (jobs_of(job) if isinstance(job, Sweep) else [job]) for mount in _of_work(one, run)]
    return tuple(dict.fromkeys(m.source for m in needed if m.read_only and _is_there(Path(m.source))))


def _is_there(path: Path) -> bool:
    """Also in a folder that is not for this person: what that means a node says."""
    try:
        return path.exists()
    except OSError:
        return True


def _of_work(job: Job, run: RunDir) -> list[Mount]:
    """What the work itself reads and writes."""
    needed: list[Mount] = []
    if isinstance(job, Pretrain):
        needed += _stores(job)
    if isinstance(job, Tuned):
        needed += _tuned(job, run)
    if isinstance(job, Curate):
        needed += _curated(job)
    if isinstance(job, Regmix):
        needed += [*_stores(job.proxy), Mount(source=str(Path(job.out).parent))]
    if isinstance(job, Export):
        needed += _exported(job, RunDir(run.path.parent / job.run))  # an absolute path stays what it is
    if isinstance(job, Evaluate):
        needed += _evaluated(job, run)
    return needed


def _stores(job: Pretrain) -> list[Mount]:
    folders = [*job.data.folders.values(), *([job.validation.store] if job.validation else [])]
    return [Mount(source=folder, read_only=True) for folder in folders]


def _tuned(job: Tuned, run: RunDir) -> list[Mount]:
    """What it reads, the run that it begins from, and the folder beside which prepared conversations appear."""
    needed = _read(job.reads.values())
    if job.init.run is not None:
        needed += _weights(RunDir(run.path.parent / job.init.run))  # an absolute path stays what it is
    if isinstance(job, Sft | Preference) and job.data.out is not None:
        needed.append(Mount(source=str(Path(job.data.out).parent)))
    return needed


def _read(paths: Iterable[str]) -> list[Mount]:
    """A file comes with its folder: beside a tokenizer lies its chat template, and where mount points have to be made
    they are folders. One that a step before is yet to make has a suffix."""
    places = {str(Path(path).parent) if _is_file(Path(path)) else path for path in paths}
    return [Mount(source=place, read_only=True) for place in sorted(places)]


def _is_file(path: Path) -> bool:
    return path.is_file() or (bool(path.suffix) and not path.exists())


def _weights(run: RunDir) -> list[Mount]:
    """A run, and what its adapters, if it has any, are of."""
    needed = [Mount(source=str(run.whole.path), read_only=True)]  # a point of a sweep has links to what it shares
    if not run.spec_file.is_file():
        return needed
    trained = load_resolved(run.spec_file)
    if not isinstance(trained, Tuned) or trained.adapters is None:
        return needed
    if trained.init.hf is not None:
        return [*needed, Mount(source=trained.init.hf, read_only=True)]
    beginning = read_beginning(run)  # None of a run that is yet to begin
    below = Path(beginning.path) if beginning else run.path.parent / (trained.init.run or "")
    return [*needed, *_weights(RunDir(below))]


def _curated(job: Curate) -> list[Mount]:
    """The folders beside which the output and the intermediate results appear, and all that is read."""
    beside = dict.fromkeys(str(Path(folder).parent) for folder in (job.out, job.work_folder))
    return [*(Mount(source=folder) for folder in beside), *_read(job.reads.values())]


def _exported(job: Export, source: RunDir) -> list[Mount]:
    """The run that is exported, what has its tokenizer, and the folder beside which the export is written."""
    run, *below = _weights(source)
    needed = [*below, run.model_copy(update={"read_only": job.out is not None})]
    if job.out is not None:
        needed.append(Mount(source=str(Path(job.out).parent)))
    return [*needed, *_words(job.tokenizer, source)]


def _evaluated(job: Evaluate, run: RunDir) -> list[Mount]:
    """What it reads, the run that is scored with what has its tokenizer, the environment of lm-eval where that is none
    of the image, and the folder beside which counts of tokens are kept."""
    needed = _read(job.reads.values())
    if job.harness and job.harness.python:
        environment = Path(job.harness.python).parent.parent
        if (environment / "pyvenv.cfg").is_file():
            needed += _read([str(environment)])
    if job.checkpoints.run is not None:
        scored = RunDir(run.path.parent / job.checkpoints.run)  # an absolute path stays what it is
        needed += [*_weights(scored), *_words(job.tokenizer, scored)]
    if job.cache is not None:
        needed.append(Mount(source=str(Path(job.cache).parent)))
    return needed


def _words(given: str | None, source: RunDir) -> list[Mount]:
    """What has the tokenizer of a run, the `given` one or that of its data, and its chat template."""
    needed = [] if given is None else _read([given])
    if not source.spec_file.is_file():
        return needed
    trained = load_resolved(source.spec_file)
    if isinstance(trained, Pretrain) and given is None:
        needed += _stores(trained)
    if isinstance(trained, Tuned):  # its conversations are of no use, and may be gone
        needed += [mount for mount in _read(trained.reads.values()) if Path(mount.source).exists()]
    return needed
