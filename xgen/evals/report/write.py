"""Writes a report: the same records give the same bytes."""

from __future__ import annotations

from pathlib import Path

from xgen.evals.protocol import SuiteName
from xgen.evals.report.plots import pictures
from xgen.evals.report.render import to_markdown
from xgen.evals.report.results import Evaluated, Results
from xgen.evals.report.sections import Report, report_of
from xgen.runs import Refused, write_atomic


def choose(results: Results, step: int | None = None) -> Evaluated:
    """The checkpoint of a step; without one the newest that is complete, or the newest. Raises Refused."""
    if not results.checkpoints:
        why = "; ".join(f"step {at}: {said}" for at, said in results.gone.items()) or "try again once a sample is done"
        raise Refused(f"{results.run} has no scores: {why}")
    if step is None:
        return max(results.checkpoints, key=lambda one: (one.complete, one.step))
    if found := next((one for one in results.checkpoints if one.step == step), None):
        return found
    if step in results.gone:
        raise Refused(f"step {step}: {results.gone[step]}")
    known = ", ".join(str(one.step) for one in results.checkpoints)
    raise Refused(f"step {step} has no scores in {results.run}; write one of {known}")


def draw(results: Results, chosen: Evaluated) -> tuple[Report, dict[str, str]]:
    """The report of a checkpoint, and the pictures by the names of their files."""
    names: dict[SuiteName | str, tuple[str, ...]] = {}
    drawn: dict[str, str] = {}
    for suite, file, text in pictures(results, chosen):
        names[suite] = (*names.get(suite, ()), file)
        drawn[file] = text
    return report_of(results, chosen, names), drawn


def write_report(results: Results, folder: Path, step: int | None = None) -> list[Path]:
    """Of a checkpoint, by default as `choose` does; each file is the old one or the whole new one.

    Raises Refused where there are no scores, OSError where it cannot be written.
    """
    chosen = choose(results, step)
    report, drawn = draw(results, chosen)
    files = {"results.json": results.model_dump_json(indent=1) + "\n", "results.md": to_markdown(report), **drawn}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomic(folder / name, text)
    return [folder / name for name in files]
