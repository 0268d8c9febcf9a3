"""`xgen samples`: what a model that is trained by online RL answers, and what that was worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, printable, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xgen.posttrain.rl.samples import SampledAnswer, SampledGroup

_SHOWN = 8  # answers, of the best, the worst, or those of a prompt


def command(
    run: RunArgument,
    step: Annotated[int | None, typer.Option("--step", metavar="N", help="Default: the newest that was kept.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="S", help="Of one source of prompts.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The answers with the highest reward.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="Those with the lowest.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Those that a verifier failed on, and why.")] = False,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", help="So many prompts, or answers.")] = 4,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print answers of a step with their rewards, by prompt: the mean of its answers is what each is held against."""
    from xgen.posttrain.rl.samples import read_samples, sampled_steps

    if best + worst + failed > 1:
        usage("write one of --best, --worst and --failed")
    if number < 1:
        usage(f"--number: {number} shows nothing; write 1 or more")
    found = find_run(run, cluster)
    steps = sampled_steps(found)
    if not steps:
        usage(f"{found.name} has kept no answers: only runs of kind rl do, every `samples_every` steps")
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        known = ", ".join(map(str, steps[-12:]))
        usage(f"{found.name} has kept no answers of step {chosen}; it has those of {known}")
    try:
        groups = list(read_samples(found, chosen))
    except ValueError:
        usage(f"{found.path / 'samples' / f'step-{chosen}.jsonl'} is damaged; write --step with another one")
    if source is not None:
        known = ", ".join(sorted({group.source for group in groups}))
        groups = [group for group in groups if group.source == source]
        if not groups:
            usage(f"step {chosen} has no answers to prompts of {source}; it has those of {known}")
    if best or worst or failed:
        groups = _by_answer(groups, worst=worst, failed=failed)
    if as_json:
        print_json([group.model_dump() for group in groups])
        return
    print(_summary(found.name, chosen, groups))
    if not groups:
        print("  no verifier failed on them" if failed else "  none of them has a verdict")
    for group in groups[:number]:
        _show(group)
    if len(groups) > number:
        typer.secho(f"and {len(groups) - number} more: write -n {len(groups)}", dim=True)


def _by_answer(groups: Sequence[SampledGroup], *, worst: bool, failed: bool) -> list[SampledGroup]:
    """Each answer by itself with its prompt: those without a verdict, or the others by their reward."""
    single = [group.model_copy(update={"answers": (answer,)}) for group in groups for answer in group.answers]
    if failed:
        return [group for group in single if group.answers[0].failures]
    known = [group for group in single if group.answers[0].reward is not None]
    return sorted(known, key=lambda group: group.answers[0].reward or 0.0, reverse=not worst)


def _summary(name: str, step: int, groups: Sequence[SampledGroup]) -> str:
    answers = [answer for group in groups for answer in group.answers]
    rewards = [answer.reward for answer in answers if answer.reward is not None]
    said = f"{name}  step {step}  {len(answers)} answers to {len({group.number for group in groups})} prompts"
    if not rewards:
        return said
    passed = sum(bool(answer.passed) for answer in answers) / len(rewards)
    without = f", {len(answers) - len(rewards)} without a verdict" if len(rewards) < len(answers) else ""
    return f"{said}: mean reward {sum(rewards) / len(rewards):.3f}, {passed:.1%} right{without}"


def _show(group: SampledGroup) -> None:
    print()
    typer.secho(f"prompt {group.number:,} of {group.source}", bold=True)
    for line in printable(group.prompt).strip().splitlines():
        typer.secho(f"  | {line}", dim=True)
    for answer in group.answers[:_SHOWN]:
        mark, color = _mark(answer)
        typer.secho(f"  {mark}", fg=color, nl=False)
        print(f"  {_facts(answer)}")
        for line in printable(answer.text).strip().splitlines() or [""]:
            print(f"      {line}")
    if len(group.answers) > _SHOWN:
        typer.secho(f"  and {len(group.answers) - _SHOWN} answers more (--json has all)", dim=True)


def _mark(answer: SampledAnswer) -> tuple[str, str]:
    if answer.reward is None:
        return "no verdict", "yellow"
    return ("right", "green") if answer.passed else ("wrong", "red")


def _facts(answer: SampledAnswer) -> str:
    """Reward by part, advantage, length, age of the weights."""
    facts = [] if answer.reward is None else [f"reward {answer.reward:.3g}"]
    if len(answer.parts) > 1 or answer.reward is None:
        scores = {kind: "none" if score is None else f"{score:.3g}" for kind, score in answer.parts.items()}
        scores |= {
            kind: ": ".join(filter(None, (why, answer.details.get(kind)))) for kind, why in answer.failures.items()
        }
        facts.append("(" + ", ".join(f"{kind} {said}" for kind, said in scores.items()) + ")")
    facts.append("does not train" if answer.advantage is None else f"advantage {answer.advantage:+.2f}")
    facts.append(f"{answer.tokens:,} tokens{', cut' if answer.finish == 'length' else ''}")
    return "  ".join(facts)
