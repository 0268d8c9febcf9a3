"""`xgen doctor`: find out what a cluster does before a real job does."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RuntimeOption, print_json, usage


def command(
    prove_runtime: Annotated[
        bool,
        typer.Option("--prove-runtime", help="Run a small job that proves the container runtime, and judge it."),
    ] = False,
    cluster: ClusterOption = None,
    runtime: RuntimeOption = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", help="With Python 3.11 and xgen's dependencies, e.g. your trainer."),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes of the job.")] = 2,
    partition: Annotated[str | None, typer.Option("--partition", help="Default: the profile's.")] = None,
    timeout: Annotated[int, typer.Option("--timeout", metavar="SECONDS", help="For queue and job together.")] = 1800,
    as_json: JsonOption = False,
) -> None:
    """Prove on this cluster what xgen expects of it.

    --prove-runtime submits a job of a minute, asks every rank what it sees of its container, sends the stop signal of
    a preemption, and prints one line for each finding. Exit code 1 when one failed.
    """
    if not prove_runtime:
        usage("nothing to do; write xgen doctor --prove-runtime [--runtime NAME] [--image IMAGE]")

    import tempfile
    from pathlib import Path

    from xgen.cluster.prove import proof_job, prove
    from xgen.spec import find_profile, load_profile, with_runtime

    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    if runtime is not None:
        profile = with_runtime(profile, runtime)
    kind = profile.container.runtime
    if kind != "none" and image is None:
        usage(f"{kind} starts images; write --image NAME, a name in {profile.container.image_dir} or a path")
    job = proof_job(profile, image, nodes, partition)
    with tempfile.TemporaryDirectory() as empty:
        run, findings = prove(
            job, name, profile, Path(empty), timeout, lambda line: print(line, file=sys.stderr, flush=True)
        )
    failed = [finding for finding in findings if finding.verdict == "failed"]
    if as_json:
        print_json({"run": run.name, "runtime": kind, "proven": not failed, "findings": findings})
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"{finding.verdict:<8} {finding.what:<{width}}  {finding.evidence}")
            for line in finding.fix.splitlines():
                print(f"{'':<8} {'':<{width}}  {line}")
        print(f"{kind} is {'NOT proven' if failed else 'proven'} on {name}; the job's files: {run.path}")
    sys.exit(1 if failed else 0)
