"""`xgen checkpoints --prune` and `--rollback`: what they may do, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xgen.cli.checkpoints import reading, rule_of, said_steps
from xgen.cli.common import print_json, usage
from xgen.cli.resume import hold

if TYPE_CHECKING:
    from xgen.cluster.status import RunStatus
    from xgen.runs import RunDir
    from xgen.train.ckpt_admin import Checkpoint, Rule


@dataclass(frozen=True)
class Deleting:
    """What a person asked of a prune; None is the spec's own."""

    keep: int | None = None
    keep_every: int | None = None
    keep_best: int | None = None
    rejected: bool = False
    rolled_back: bool = False

    def rule(self, default: Rule) -> Rule:
        """With one number given the others are none: what is written is the whole rule."""
        from xgen.train.ckpt_admin import Rule

        if self.keep is None and self.keep_every is None and self.keep_best is None:
            return default
        return Rule(self.keep or 1, self.keep_every or 0, self.keep_best or 0)


def run_prune(run: RunDir, deleting: Deleting, *, dry_run: bool, as_json: bool) -> None:
    """Delete what the rule does not keep. Never the newest, nor the only one that verifies."""
    from xgen.spec.units import format_bytes
    from xgen.train.ckpt_admin import Unsafe, check, choose, delete, survey

    def is_sound(checkpoint: Checkpoint) -> bool:
        with reading([checkpoint]) as tick:
            return check([checkpoint], tick)[0].state == "verified"

    spec_rule = rule_of(run)
    if spec_rule is None:
        usage(f"{run.name} is a command, whose checkpoints are its own; --prune knows those of pretrain runs")
    status = hold(run)
    found = survey(run)
    leftovers = [c for c in found if deleting.rejected and c.state in ("rejected", "broken", "unfinished")]
    set_aside = [c for c in found if deleting.rolled_back and c.state == "rolled back"]
    if status.state in ("pending", "running"):
        _check_against_trainer(status, found, deleting.rule(spec_rule), spec_rule, [*leftovers, *set_aside])
    complete = [c for c in found if c.counts]
    try:
        doomed = [*choose(found, deleting.rule(spec_rule), set_aside, is_sound), *leftovers]
    except Unsafe as unsafe:
        usage(f"{run.name}: {unsafe}, so none is deleted; xgen checkpoints {run.name} --verify names the faults")
    freed, gone = 0, []
    for checkpoint in sorted(doomed, key=lambda c: (c.step, c.name)):
        freed += checkpoint.size if dry_run else delete(checkpoint)
        gone.append(checkpoint.name)
        if not as_json:
            print(f"{'would delete' if dry_run else 'deleted'} {checkpoint.name}, {format_bytes(checkpoint.size)}")
    if as_json:
        print_json({"run": run.name, "dry_run": dry_run, "deleted": gone, "freed": freed})
    elif not gone:
        print(f"{run.name}: nothing to delete; the rule keeps all {len(complete)}")
    else:
        print(f"{'would free up to' if dry_run else 'freed'} {format_bytes(freed)}")


def _check_against_trainer(
    status: RunStatus, found: list[Checkpoint], rule: Rule, spec_rule: Rule, leftovers: list[Checkpoint]
) -> None:
    """While a run lives only that may go which its trainer would delete at its next save."""
    from xgen.train.ckpt_admin import kept_steps

    needed = kept_steps(found, spec_rule) - kept_steps(found, rule)
    if needed or leftovers:
        what = ", ".join([*(f"step-{step}" for step in sorted(needed)), *(c.name for c in leftovers)])
        usage(
            f"{status.name} is {status.state} as job {status.job_id}, and its trainer keeps {what}; "
            f"write xgen cancel {status.name} first, or --prune alone"
        )


def roll_back(run: RunDir, step: int, *, dry_run: bool, as_json: bool) -> None:
    """Set aside what is newer than a checkpoint that verifies, and tell the run's records."""
    if rule_of(run) is None:
        usage(f"{run.name} is a command, whose checkpoints are its own; write xgen fork {run.name}@{step}")
    status = hold(run)
    if status.state in ("pending", "running"):
        usage(f"{run.name} is {status.state} as job {status.job_id}; write xgen cancel {run.name} first")
    if status.state == "finished":
        usage(f"{run.name} has finished, and cannot go on; write xgen fork {run.name}@{step}")
    found = sound_target(run, step, "--rollback")
    if dry_run:
        _say(run, step, [c.name for c in reversed(_newer(found, step))], dry_run, as_json)
        return
    _say(run, step, set_back(run, step, found, status), dry_run, as_json)


def sound_target(run: RunDir, step: int, option: str) -> list[Checkpoint]:
    """The checkpoints of a run of which that of `step` verifies. Leaves with exit code 2 where it does not."""
    from xgen.train.ckpt_admin import check, survey

    found = survey(run)
    target = next((c for c in found if c.step == step and c.counts), None)
    if target is None:
        usage(f"{option}: {run.name} has no complete checkpoint of step {step}; {said_steps(found)}")
    with reading([target]) as tick:
        checked = check([target], tick)[0]
    if checked.faults:
        others = said_steps([c for c in found if c is not target])
        usage(f"{option}: {target.name} does not verify: {checked.faults[0]}; {others}")
    return found


def _newer(found: list[Checkpoint], step: int) -> list[Checkpoint]:
    return [c for c in found if c.step > step and c.state in ("complete", "broken")]


def set_back(run: RunDir, step: int, found: list[Checkpoint], status: RunStatus) -> list[str]:
    """Set aside what is newer than `step`, of a run of which nothing runs. Returns the new names."""
    from xgen.runs import EventWriter, read_events, replay
    from xgen.train.ckpt_admin import delete, set_aside

    for unfinished in found:  # a writer that outlived its attempt must not publish one that is newer
        if unfinished.state == "unfinished" and unfinished.step > step:
            delete(unfinished)
    names = set_aside(_newer(found, step))
    if names or replay(read_events(run)).durable_step != step:  # or a rollback was cut short before it was told
        _correct_outcome(run, step)
        reason = f"{', '.join(names)} set aside" if names else None
        writer = EventWriter(run, "client", status.attempt, status.job_id)
        writer.write("rolled_back", step=step, reason=reason, durable=True)
    return names


def _correct_outcome(run: RunDir, step: int) -> None:
    """The newest outcome, as the batch script reads it: failures without a new checkpoint are counted from the one
    gone back to, and a stage whose end was set aside has not finished."""
    from xgen.runs import read_attempt_outcome, write_atomic
    from xgen.spec import Pretrain, load_resolved

    attempts = range(run.last_attempt(), 0, -1)
    attempt, outcome = next(((n, said) for n in attempts if (said := read_attempt_outcome(run, n))), (0, None))
    if outcome is None or outcome.durable_step <= step:
        return
    changed: dict[str, object] = {"durable_step": step}
    job = load_resolved(run.spec_file)
    if outcome.status == "stage_finished" and isinstance(job, Pretrain) and step < job.places[outcome.stage].last_step:
        changed |= {"status": "stopped", "reason": f"rolled back to step {step}"}
    write_atomic(run.attempt_dir(attempt) / "outcome.json", outcome.model_copy(update=changed).model_dump_json() + "\n")


def _say(run: RunDir, step: int, names: list[str], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"run": run.name, "step": step, "dry_run": dry_run, "set_aside": names})
        return
    for name in names:
        print(f"would set aside {name}" if dry_run else f"set aside as {name}")
    print(f"{run.name} {'would begin' if dry_run else 'begins'} at step {step}, which verifies: xgen resume {run.name}")
