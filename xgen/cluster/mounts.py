"""What of the host is in the container."""

from __future__ import annotations

from pathlib import Path

from xgen.runs import RunDir
from xgen.spec import Curate, Export, Job, Mount, Pretrain, Profile, Regmix, load_resolved


def all_mounts(job: Job, profile: Profile, run: RunDir) -> tuple[Mount, ...]:
    """What every job needs (its run directory with the code in it read-only, the folder in which it announces itself
    to Prometheus, the token stores or the run that it reads), then what the cluster needs, then the spec's own; the
    last word on a target counts."""
    needed = [
        Mount(source=str(run.path)),
        Mount(source=str(run.code_dir), read_only=True),
        Mount(source=str(run.discovery_file.parent)),
    ]
    if isinstance(job, Pretrain):
        needed += _stores(job)
    if isinstance(job, Curate):
        needed += _curated(job)
    if isinstance(job, Regmix):
        needed += [*_stores(job.proxy), Mount(source=str(Path(job.out).parent))]
    if isinstance(job, Export):
        needed += _exported(job, RunDir(run.path.parent / job.run))  # an absolute path stays what it is
    by_target = {m.place: m for m in (*needed, *profile.container.mounts, *job.container.mounts)}
    return tuple(by_target.values())


def _stores(job: Pretrain) -> list[Mount]:
    folders = [*job.data.folders.values(), *([job.validation.store] if job.validation else [])]
    return [Mount(source=folder, read_only=True) for folder in folders]


def _curated(job: Curate) -> list[Mount]:
    """The folders beside which the output and the intermediate results appear, and all that is read."""
    beside = dict.fromkeys(str(Path(folder).parent) for folder in (job.out, job.work_folder))
    return [
        *(Mount(source=folder) for folder in beside),
        *(Mount(source=path, read_only=True) for path in dict.fromkeys(job.reads.values())),
    ]


def _exported(job: Export, source: RunDir) -> list[Mount]:
    """The run that is exported, the store that has its tokenizer, and the folder beside which the export is written."""
    needed = [Mount(source=str(source.path), read_only=job.out is not None)]
    if job.out is not None:
        needed.append(Mount(source=str(Path(job.out).parent)))
    if job.tokenizer is not None:
        needed.append(Mount(source=job.tokenizer, read_only=True))
    elif source.spec_file.is_file() and isinstance(trained := load_resolved(source.spec_file), Pretrain):
        needed += _stores(trained)
    return needed
