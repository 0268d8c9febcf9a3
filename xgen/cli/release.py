"""`xgen release`: the opposite of `xgen hold`."""

from __future__ import annotations

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage
from xgen.cli.hold import ask


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Let a run that was held (xgen hold) go on."""
    from xgen.cluster.orders import is_held, release
    from xgen.runs import EventWriter

    found = find_run(run, cluster)
    status, rows = ask(found)
    if not found.held_file.exists() and not any(is_held(row) for row in rows):
        usage(f"{found.name} is not held: it is {status.state}" + (f" ({status.reason})" if status.reason else ""))
    jobs = release(found, rows)
    EventWriter(found, "client", status.attempt, status.job_id).write("released", durable=True)
    if as_json:
        print_json({"run": found.name, "was": status.state, "released_jobs": jobs, "job_id": status.job_id})
    else:
        print(f"{found.name} is released" + (f", job {', '.join(jobs)}" if jobs else ""))
