"""What the shards make of a checkpoint together: who is done with it, its scores once all are, and the word of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from xgen.evals.once import alone
from xgen.evals.protocol import Item
from xgen.evals.records import make_folder, read_records, step_folder
from xgen.evals.summary import Summary, summarize
from xgen.runs import EventWriter, TaskContext, read_events, write_atomic

SCORES = "scores.json"


def mark_done(context: TaskContext, step: int, items: Sequence[Item]) -> None:
    """The shard has no sample left of a checkpoint, of all those that it has."""
    folder = step_folder(context.run.whole, step) / ".done"
    make_folder(folder)
    write_atomic(folder / str(context.shard), _share(context, items))


def conclude(context: TaskContext, step: int, items: Sequence[Item], name: str) -> bool:
    """Write the scores of a checkpoint and tell of them, unless somebody has, or a shard still has samples of it.
    Returns whether they are there. Raises OSError."""
    run = context.run.whole
    folder = step_folder(run, step)
    if not (folder / SCORES).exists() and not _all_done(context, folder, items):
        return False
    with alone(run.evaluation_dir):
        if not (folder / SCORES).exists():
            records = read_records(folder)
            if set(items) - {record.item for record in records}:
                return False  # a file that is not yet seen here: whoever is last sees all
            write_atomic(folder / SCORES, summarize(records, items).model_dump_json(indent=1) + "\n")
            (folder / "gone").unlink(missing_ok=True)
        # What transformers read: of a 9B 18 GB a checkpoint, and nothing reads it any more.
        shutil.rmtree(run.evaluation_dir / "export" / folder.name, ignore_errors=True)
        _tell(context, step, name, Summary.model_validate_json((folder / SCORES).read_bytes()))
    return True


def _share(context: TaskContext, items: Sequence[Item]) -> str:
    """What a shard is done with: of as many shards, and these samples."""
    digest = hashlib.blake2b(digest_size=16)
    for item in items:
        digest.update(repr(item).encode())
    return f"{context.num_shards} {digest.hexdigest()}\n"


def _all_done(context: TaskContext, folder: Path, items: Sequence[Item]) -> bool:
    shards = {str(shard) for shard in range(context.num_shards)}
    try:
        if not shards <= {file.name for file in (folder / ".done").iterdir()}:  # one call, until all are there
            return False
    except FileNotFoundError:
        return False
    wanted = _share(context, items)
    return all((folder / ".done" / shard).read_text(encoding="utf-8") == wanted for shard in shards)


def _tell(context: TaskContext, step: int, name: str, summary: Summary) -> None:
    """Once a checkpoint, though an attempt may have died between its scores and its word."""
    run = context.run.whole
    if any(event.event == "evaluated" and event.step == step for event in read_events(run)):
        return
    scores = {score.key: score.mean for score in summary.scores}
    writer = EventWriter(run, "evaluation", run.last_attempt(), context.job_id)
    writer.write("evaluated", step=step, checkpoint=name, scores=scores, durable=True)
