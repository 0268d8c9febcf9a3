"""`make evaluate`: a model learns to find a number in a text, and is scored at three of its checkpoints.

The evaluation is three shards, preempted once. Then come what was to be shown, the heat map, the checkpoints against
each other, and the dashboard. Everything is real: SLURM, the preemption, the training; what is learnt is planted
(xgen/evals/tiny).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path

from demo import (
    PROMETHEUS,
    ROOT,
    XGEN,
    DemoError,
    ask_to_preempt,
    bring_up,
    failed,
    find,
    headline,
    start_monitor,
    submit,
    wait,
)

from xgen.evals.protocol import Item, Record
from xgen.evals.records import num_recorded, step_folder, steps_of
from xgen.runs import RunDir, read_events, replay
from xgen.spec import Evaluate, Pretrain, load_resolved

CORPUS, STORE = Path(".cache/tiny-needles"), Path(".cache/tiny-needles-store")
NUM_CHECKPOINTS = 3
SHARE = 0.9  # of the needles, that is found at the training length by its last checkpoint


def main() -> int:
    """Exit code: 0 where all that was to be shown is so."""
    parser = argparse.ArgumentParser(prog="python jobs/tiny/evaluate.py", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the training; default: %(default)s")
    parser.add_argument("--cluster", metavar="NAME", help="default: dev, brought up here; local without SLURM")
    parser.add_argument("--trained", metavar="RUN", help="of retrieval.yaml; default: one that is made now")
    parser.add_argument("--out", type=Path, default=Path(".cache/demo/evaluate"), help="default: %(default)s")
    options = parser.parse_args()
    os.chdir(ROOT)
    began = time.monotonic()
    try:
        cluster = options.cluster or bring_up()
        watched = start_monitor(cluster)
        make_data()
        trained = options.trained or train(cluster, options.seed)
        run = evaluate(trained, cluster)
        shown = verdict(run)
        report(run, trained, cluster, options.out)
        if watched:
            draw(trained, steps_of(run)[-1], began, options.out)
    except (DemoError, subprocess.SubprocessError) as error:
        return failed("evaluate", error)
    print(f"\n{time.monotonic() - began:.0f} s. Look around: {options.out}, xgen status {run.name} --cluster {cluster}")
    return 0 if shown else 1


def make_data() -> None:
    """Does nothing where it is there."""
    headline("documents that hide a number, and their tokens")
    subprocess.run([sys.executable, "-m", "xgen.evals.tiny", str(CORPUS)], check=True, timeout=300)
    words = ["--input", str(CORPUS / "train"), "--domain-key", "domain", "--tokenizer", str(CORPUS / "tokenizer.json")]
    subprocess.run([*XGEN, "data", "build", str(STORE), *words, "--wait", "60"], check=True, timeout=600)


def train(cluster: str, seed: int) -> str:
    headline("a model that learns to find it")
    run = submit("jobs/tiny/retrieval.yaml", cluster, f"seed={seed}", "resources.partition=gpu")
    until_the_end(run, 1200)
    return run.name


def evaluate(trained: str, cluster: str) -> RunDir:
    headline("three checkpoints of it, scored by three shards, which somebody preempts")
    run = submit("jobs/tiny/evaluate.yaml", cluster, f"checkpoints.run={trained}")
    wait(run, "some of the samples", lambda _: num_samples(run) >= 100, timeout=300)
    ask_to_preempt(run, cluster)
    wait(run, "the requeue", lambda _: any(find(shard, "requeued") for shard in shards(run)), timeout=90)
    print(f"  {num_samples(run)} samples were safe")
    until_the_end(run, 1200)
    return run


def until_the_end(run: RunDir, timeout: float) -> None:
    wait(run, "the end", lambda ledger: ledger.phase is None, timeout)
    if not find(run, "finished"):
        raise DemoError(f"{run.name} did not finish: see xgen status {run.name}")


def shards(run: RunDir) -> list[RunDir]:
    folder = run.shard("score", 0).path.parent
    return [RunDir(path) for path in sorted(folder.glob("[0-9]*"))]


def num_samples(run: RunDir) -> int:
    return sum(num_recorded(step_folder(run, step)) for step in steps_of(run))


def verdict(run: RunDir) -> bool:
    """Print what was to be shown; whether all of it was."""
    headline(f"what {run.name} has found")
    steps = steps_of(run)
    attempts = [len(replay(read_events(shard)).attempts) for shard in shards(run)]
    preempted = sum(find(shard, "requeued") is not None for shard in shards(run))
    lines = {step: Counter(record.item for record in lines_of(run, step)) for step in steps}
    scored = Counter(str(event.step) for event in read_events(run) if event.event == "evaluated")
    for step in steps:
        print(f"  step {step}: {len(lines[step])} samples; found by length: {by_length(lines_of(run, step))}")
    found = needles(lines_of(run, steps[-1]))
    length = training_length(run)
    return all(
        [
            told(len(steps) == NUM_CHECKPOINTS == len(scored), f"{len(steps)} checkpoints, each told of once"),
            told(preempted > 0, f"{preempted} shards were preempted; attempts of each: {attempts}"),
            told(once(lines), "every sample of every checkpoint was scored once"),
            told(found[length] >= SHARE, f"{found[length]:.0%} of the needles at {length} tokens, the training length"),
            told(found[max(found)] < found[length] / 2, f"{found[max(found)]:.0%} at {max(found)} tokens: it breaks"),
        ]
    )


def told(holds: bool, claim: str) -> bool:
    print(f"  {'yes' if holds else 'NO'}: {claim}")
    return holds


def lines_of(run: RunDir, step: int) -> list[Record]:
    """All lines that any shard has written, not each sample once."""
    files = sorted(step_folder(run, step).glob("*.jsonl"))
    return [Record.model_validate_json(line) for file in files for line in file.read_bytes().splitlines()]


def once(lines: dict[int, Counter[Item]]) -> bool:
    """No sample has two lines, and all checkpoints have the same."""
    first, *others = lines.values()
    return all(set(of.values()) == {1} for of in lines.values()) and all(of == first for of in others)


def needles(records: list[Record]) -> dict[int, float]:
    """The share that is found at each length, over all depths."""
    lengths = sorted({record.length for record in records if record.suite == "needles"})
    at = {length: [r.score for r in records if r.suite == "needles" and r.length == length] for length in lengths}
    return {length: statistics.fmean(scores) for length, scores in at.items()}


def by_length(records: list[Record]) -> str:
    return ", ".join(f"{length} {share:.0%}" for length, share in needles(records).items())


def training_length(run: RunDir) -> int:
    job = load_resolved(run.spec_file)
    assert isinstance(job, Evaluate) and job.checkpoints.run
    trained = load_resolved(run.path.parent / job.checkpoints.run / "spec.yaml")
    assert isinstance(trained, Pretrain)
    return max(stage.seq_len for stage in trained.stages)


def report(run: RunDir, trained: str, cluster: str, out: Path) -> None:
    headline("the report, and the checkpoints against each other")
    subprocess.run(
        [*XGEN, "evals", "report", run.name, "--cluster", cluster, "--out", str(out)], check=True, timeout=120
    )
    sides = [f"{trained}@{step}" for step in steps_of(run)]
    words = ["compare", *sides, "--metric", "needles/*", "--metric", "perplexity/*", "--cluster", cluster]
    subprocess.run([*XGEN, *words], check=True, timeout=120)


def draw(trained: str, last: int, began: float, out: Path) -> None:
    headline("the dashboard, every panel from that Prometheus")
    await_step(trained, last)
    board = ["--dashboard", "monitoring/dashboards/compare.json", "--variable", f"run={trained}"]
    span = ["--start", str(time.time() - (time.monotonic() - began)), "--end", str(time.time())]
    command = [sys.executable, "monitoring/draw.py", "--prometheus", PROMETHEUS, *board, *span]
    subprocess.run([*command, "--out", str(out / "dashboard.png")], check=True, timeout=120)


def await_step(trained: str, step: int) -> None:
    """Until Prometheus has the scores of a checkpoint: the exporter takes up one a poll."""
    query = urllib.parse.quote(f'max(xgen_eval_step{{target="{trained}"}})')
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{PROMETHEUS}/api/v1/query?query={query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        if found and float(found[0]["value"][1]) >= step:
            return
        time.sleep(1)
    raise DemoError(f"Prometheus has no scores of {trained}@{step} after 90 s: see xgen monitor status")


if __name__ == "__main__":
    sys.exit(main())
