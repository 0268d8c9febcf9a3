"""A trainer that asks rollout servers and learns nothing: `python rollout_trainer.py RUN_DIR`, in place of xgen-task.

Each of its steps publishes weights, asks for answers and writes them to answers.jsonl; a step that is whole is a
checkpoint. It goes on where it was, and stops when it is told to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import torch

from xgen.cli import task
from xgen.engine.protocol import Request, Sampling
from xgen.model.hf import parameter_shapes
from xgen.posttrain.servers import HttpEngine
from xgen.posttrain.servers.weights import current
from xgen.runs import RankOutcome, TaskContext, write_atomic
from xgen.spec import Rl, load_resolved

ANSWERS, TOKENS = 6, 40  # of a step, and of an answer


def train(context: TaskContext) -> RankOutcome:
    job = load_resolved(context.run.spec_file)
    assert isinstance(job, Rl)
    engine = HttpEngine(context.run, job, "float32")
    done = max(context.run.checkpoint_steps(), default=0)
    try:
        for step in range(done + 1, job.train.steps + 1):
            if (context.run.path / "crash").exists():
                raise RuntimeError("the test wants it")
            engine.load(step, zeros(job))
            for number in range(ANSWERS):
                engine.submit(Request(f"{step}/{number}", (step, number), 0, Sampling(max_tokens=TOKENS)))
            found: list[dict[str, object]] = []
            while len(found) < ANSWERS:
                if context.stop:
                    return RankOutcome(status="stopped", step=done, time=0)
                found += [
                    {"id": one.id, "tokens": one.tokens, "versions": one.versions, "weights": current(context.run)}
                    for one in engine.completed(timeout=0.2)
                ]
            with (context.run.path / "answers.jsonl").open("a") as file:
                file.writelines(json.dumps(one) + "\n" for one in found)
            place = context.run.checkpoints_dir / f"step-{step}"
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / "manifest.json", "{}\n")
            done = step
        return RankOutcome(status="finished", step=done, time=0)
    finally:
        engine.close()


def zeros(job: Rl) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, torch.zeros(shape)) for name, shape in parameter_shapes(job.model).items())


if __name__ == "__main__":
    task._work = train
    sys.exit(task.main())
