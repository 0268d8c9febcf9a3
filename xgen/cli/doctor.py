"""`xgen doctor`: what will go wrong on a cluster, found before a real job finds it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import EXIT_SCHEDULER, ClusterOption, JsonOption, RuntimeOption, SetOption, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.doctor.finding import Finding
    from xgen.cluster.doctor.need import Need
    from xgen.cluster.site import Site
    from xgen.spec import LoadedJob, Profile


@dataclass
class _Report:
    """What is found, as it is found."""

    cluster: str
    profile: Profile
    loaded: LoadedJob | None
    needs: list[Need] = field(default_factory=list)
    site: Site | None = None
    findings: list[Finding] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    runs: dict[str, Path] = field(default_factory=dict)  # of the jobs that it ran
    proven: bool | None = None  # the runtime, where that was asked
    hangs: bool = False  # the run root, in which each job would begin


def command(
    spec: Annotated[
        Path | None,
        typer.Argument(help="A job spec, whose needs are looked at too.", metavar="SPEC", show_default=False),
    ] = None,
    on_node: Annotated[
        bool, typer.Option("--on-node", help="Ask nodes too, by a job of seconds: files, locks, runtime, network.")
    ] = False,
    network: Annotated[
        bool, typer.Option("--network", help="Run a small job that measures an all-reduce between nodes.")
    ] = False,
    prove_runtime: Annotated[
        bool,
        typer.Option("--prove-runtime", help="Run a small job that proves the container runtime, and judge it."),
    ] = False,
    cluster: ClusterOption = None,
    overrides: SetOption = None,
    runtime: RuntimeOption = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", help="With Python 3.11 and xgen's dependencies. Default: the spec's."),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes of each job.")] = 2,
    partition: Annotated[
        str | None, typer.Option("--partition", help="Of each job. Default: the spec's, else the profile's.")
    ] = None,
    timeout: Annotated[int, typer.Option("--timeout", metavar="SECONDS", help="Of each job, with its queue.")] = 1800,
    as_json: JsonOption = False,
) -> None:
    """Say what will go wrong on this cluster, and the line to change.

    Compares the cluster profile with what SLURM says of itself, looks at the run root, and with a SPEC at what its jobs
    need: time, grace, GPUs, room. One line for each thing that was looked at: ok, warning or failed, the evidence, and
    below it the fix. What SLURM did not answer is listed, and is no finding. docs/doctor.md explains each.

    Nothing is submitted but by --on-node, --network and --prove-runtime, a small job each. Begin with
    `xgen doctor SPEC --cluster NAME --on-node`.

    Exit code 1 when one failed; else 3 when the scheduler did not answer; else 0.
    """
    from xgen.spec import find_profile, load_job, load_profile, with_runtime
    from xgen.spec.pipeline_load import is_pipeline

    if overrides and spec is None:
        usage("--set changes a spec; write xgen doctor SPEC --set KEY=VALUE")
    if spec and is_pipeline(spec):
        usage(f"{spec} is a pipeline; write the spec of one of its steps")
    loaded = load_job(spec, overrides or []) if spec else None
    named = cluster or (loaded.job.cluster if loaded else None)
    name, file = find_profile(named, loaded.root if loaded else Path.cwd())
    profile = load_profile(file)
    if runtime is not None:
        profile = with_runtime(profile, runtime)
    image = image or (loaded.job.container.image if loaded else None)
    kind = profile.container.runtime
    if (network or prove_runtime) and kind != "none" and image is None:
        usage(f"{kind} starts images; write --image NAME, a name in {profile.container.image_dir} or a path")

    report = _Report(name, profile, loaded)
    _look(report)
    if report.hangs:
        if on_node or network or prove_runtime:
            report.unanswered.append("the nodes: no job is submitted from a run root that does not answer")
    else:
        partition = partition or (report.needs[0].partition if report.needs else profile.default_partition)
        images = _find_images(report, image)
        if on_node or profile.scheduler == "local":  # then this machine is the node
            _ask_nodes(report, nodes, partition, images, timeout)
        if prove_runtime:
            _prove(report, nodes, partition, image, timeout)
        if network:
            _measure(report, nodes, partition, image, timeout)
    if as_json:
        _print_json(report)
    else:
        _print(report)
    verdicts = Counter(finding.severity for finding in report.findings)
    sys.exit(1 if verdicts["failed"] else EXIT_SCHEDULER if _is_silent(report) else 0)


def _look(report: _Report) -> None:
    """What needs no job."""
    from xgen.cluster.doctor.site import judge_site
    from xgen.cluster.doctor.storage import judge_run_root, look_at_run_root
    from xgen.cluster.site import ask_site
    from xgen.cluster.slurm import SchedulerError

    profile = report.profile
    root = look_at_run_root(Path(profile.run_root))
    report.hangs = root.hangs
    if report.loaded and root.hangs:
        report.unanswered.append("the spec: what it reads may lie where nothing answers")
    elif report.loaded:
        from xgen.cli.doctor_needs import find_in_spec, needs_of

        report.findings += find_in_spec(report.loaded, profile)
        if all(finding.severity == "ok" for finding in report.findings):
            report.needs = needs_of(report.loaded, profile)
    if profile.scheduler == "slurm":
        try:
            report.site = ask_site()
        except SchedulerError as error:
            report.unanswered.append(f"SLURM's settings: {error}")
    if report.site:
        report.findings += judge_site(report.site, profile, report.needs)
        report.unanswered += report.site.unanswered
    report.findings += judge_run_root(root, report.needs)


def _find_images(report: _Report, image: str | None) -> tuple[str, ...]:
    """Paths that the nodes must be able to read."""
    from xgen.cli.doctor_needs import find_images

    places, findings = find_images(report.loaded, image, report.profile)
    report.findings += findings
    return tuple(places)


def _ask_nodes(report: _Report, num: int, partition: str, images: tuple[str, ...], timeout: float) -> None:
    from xgen.cluster.doctor.ask import Question, ask_nodes
    from xgen.cluster.doctor.nodes import judge_nodes
    from xgen.cluster.mounts import inputs_of

    profile, site, job = report.profile, report.site, report.loaded.job if report.loaded else None
    if profile.scheduler == "slurm":
        if site is None:
            report.unanswered.append("nodes: there is no SLURM to ask them by")
            return
        if site.partitions and partition not in [part.name for part in site.partitions]:
            report.unanswered.append(f"nodes: there is no partition {partition}")
            return
        num = min(num, len(site.nodes_of(partition)) or num)
    else:
        num = 1
    mounts = tuple(job.container.mounts) if job else ()
    inputs = inputs_of(job, profile) if job else ()
    question = Question(num, partition, profile.account_of(job.project) if job else None, images, mounts, inputs)
    answer = ask_nodes(profile, question, timeout, _say)
    if answer.timed_out and not answer.nodes:
        report.unanswered.append(f"nodes: the job did not start within {timeout:.0f} s")
        return
    report.findings += judge_nodes(answer, num, profile, report.needs, images, inputs)


def _prove(report: _Report, nodes: int, partition: str, image: str | None, timeout: float) -> None:
    import tempfile

    from xgen.cluster.doctor.prove import proof_job, prove

    job = proof_job(report.profile, image, nodes, partition)
    with tempfile.TemporaryDirectory() as empty:
        run, findings = prove(job, report.cluster, report.profile, Path(empty), timeout, _say)
    report.findings += findings
    report.runs["prove"] = run.path
    report.proven = all(finding.severity != "failed" for finding in findings)


def _measure(report: _Report, nodes: int, partition: str, image: str | None, timeout: float) -> None:
    import tempfile

    from xgen.cluster.doctor.network import measure, network_job

    gpus = report.needs[0].gpus_per_node if report.needs else _gpus_of(report, partition)
    if nodes * max(1, gpus) == 1:
        report.unanswered.append("bandwidth: one rank has nobody to talk to; write --nodes 2")
        return
    job = network_job(report.profile, image, nodes, gpus, partition)
    with tempfile.TemporaryDirectory() as empty:
        run, findings = measure(job, report.cluster, report.profile, Path(empty), timeout, _say)
    report.findings += findings
    report.runs["network"] = run.path


def _gpus_of(report: _Report, partition: str) -> int:
    """All of a node, for each has a way of its own to the network; one where GPUs are only played (gpus.devices)."""
    if report.site is None or report.profile.gpus.request == "none" or report.profile.gpus.devices is not None:
        return 1
    return max([1, *(node.num_gpus for node in report.site.nodes_of(partition))])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_silent(report: _Report) -> bool:
    return report.profile.scheduler == "slurm" and report.site is None


def _print_json(report: _Report) -> None:
    site = report.site
    print_json(
        {
            "cluster": report.cluster,
            "scheduler": report.profile.scheduler,
            "slurm": site.version if site else None,
            "runtime": report.profile.container.runtime,
            "findings": report.findings,
            "unanswered": report.unanswered,
            "proven": report.proven,
            "runs": report.runs,
        }
    )


def _print(report: _Report) -> None:
    width = max(len(finding.what) for finding in report.findings)
    for finding in report.findings:
        print(f"{finding.severity:<8} {finding.what:<{width}}  {finding.evidence}")
        for line in finding.fix.splitlines():
            print(f"{'':<8} {'':<{width}}  {line}")
    for line in report.unanswered:
        print(f"unknown  {line}")
    if report.proven is not None:
        kind, proven = report.profile.container.runtime, "proven" if report.proven else "NOT proven"
        print(f"{kind} is {proven} on {report.cluster}; the job's files: {report.runs['prove']}")
    if "network" in report.runs:
        print(f"the files of the all-reduce: {report.runs['network']}")
    verdicts = Counter(finding.severity for finding in report.findings)
    failed, warned = verdicts["failed"], verdicts["warning"]
    said = [f"{failed} failed"] * bool(failed) + [f"{warned} warning{'s' * (warned > 1)}"] * bool(warned)
    said += ["not all was answered"] * bool(report.unanswered)
    print(f"{report.cluster}: {', '.join(said) or 'nothing is wrong'}")
