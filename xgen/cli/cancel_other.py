"""`xgen cancel` of somebody else's run: SLURM decides, and a run that it leaves alone is left alone here too."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from xgen.cli.common import print_json, usage

if TYPE_CHECKING:
    from xgen.runs import RunDir


def cancel_other(run: RunDir, *, as_json: bool) -> None:
    """SLURM first, then the marker: where it refuses nothing has changed. Raises SchedulerError."""
    from xgen.cluster import slurm
    from xgen.cluster.status import ask_slurm, run_status
    from xgen.runs.users import user_name

    uid = run.path.stat().st_uid
    owner = user_name(uid)
    view = ask_slurm([run])
    if view.jobs is None:
        raise slurm.SchedulerError(f"{view.error}; {run.name} is {owner}'s, and nothing of it was changed")
    status = run_status(run, view)
    if status.state in ("finished", "failed", "cancelled"):
        usage(f"{run.name} is {status.state} already")
    if run.name not in view.jobs:
        usage(f"{run.name} is {owner}'s, and SLURM shows you no job of it: ask {owner}")
    accounts: list[str] = []
    with suppress(slurm.SchedulerError):  # it is only said
        accounts = slurm.accounts_of(run.name, uid)
    try:
        slurm.cancel(run.name, uid)
    except slurm.UnansweredError as error:
        said = f"whether it has heard it is not known; {run.name} is {owner}'s and was not marked as cancelled"
        raise slurm.UnansweredError(f"{error}; {said}: xgen status {run.name}") from None
    except slurm.SchedulerError as error:
        charged = f", charged to account {', '.join(accounts)}" if accounts else ""
        said = (
            f"{run.name} is {owner}'s{charged}, and goes on as before. Who may cancel it: {_who_may(owner, accounts)}"
        )
        raise slurm.SchedulerError(f"{error}; {said}") from None
    marked = _mark(run, status.attempt, status.job_id)
    if as_json:
        facts = {"run": run.name, "job_id": status.job_id, "was": status.state, "owner": owner, "marked": marked}
        print_json(facts)
        return
    print(f"{run.name} of {owner} was {status.state}, job {status.job_id}; SLURM cancelled it")
    if not marked:
        print(f"its directory is not yours to write in: SLURM's record says to {owner} that it was cancelled")


def _who_may(owner: str, accounts: list[str]) -> str:
    """In SLURM's rules: the owner, coordinators of the account, operators and administrators."""
    from xgen.cluster import slurm

    found: list[str] = []
    for account in accounts:
        with suppress(slurm.SchedulerError):  # no accounting, or it does not answer
            found += slurm.coordinators(account)
    named = f" ({', '.join(sorted(set(found)))})" if found else ""
    return f"{owner}, coordinators of the account{named}, operators and administrators of SLURM"


def _mark(run: RunDir, attempt: int, job_id: str) -> bool:
    """So that nothing starts it again; False where the directory may not be written."""
    from xgen.runs import EventWriter, write_atomic

    try:
        write_atomic(run.cancelled_file, "")
        EventWriter(run, "client", attempt, job_id).write("cancelled", durable=True)
    except OSError:
        return run.cancelled_file.exists()
    return True
