"""A sweep runs as one job array: each point by its own spec, in its own folder, stopped early by the rule or not."""

from __future__ import annotations

import json
import sys

import yaml

from tests.cluster_unit.conftest import Bench, exit_code, tell, wait_until
from tests.conftest import xgen
from xgen.cluster import local
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.runs import RunDir, read_attempt_outcome, read_events
from xgen.runs.points import why_ended
from xgen.runs.shards import finished_shards, given_up_shards
from xgen.spec import load_job, load_profile

# A training without torch: its loss is the rate that it is given; a step waits until the rule has seen the one before.
WORK = """
import json, os, pathlib, sys, time
run, rate = pathlib.Path(os.environ["XGEN_RUN_DIR"]), float(sys.argv[1])
(run / "tries").open("a").write("x")
if rate > 90 and not pathlib.Path(sys.argv[2]).exists():
    sys.exit(1)
for step in (5, 10, 15):
    with (run / "metrics/steps.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss": rate}) + "\\n")
    verdict, deadline = run.parent / f".at-{step}" / run.name, time.time() + 60
    while step == 10 and not verdict.exists() and time.time() < deadline:
        time.sleep(0.02)
    if step == 10 and not json.loads(verdict.read_text())["kept"]:
        time.sleep(60)
(run / "result.json").write_text(json.dumps({"score": {"of": 1 / rate}}))
"""


def submit_sweep(bench: Bench, rates: list[float]) -> RunDir:
    base = {
        "kind": "command", "name": "base", "command": [sys.executable, "-c", WORK, "1", str(bench.path / "mended")],
        "lead": "10s", "resources": {"gpus_per_node": 1, "time": "5m"},
    }  # fmt: skip
    sweep = {
        "kind": "sweep", "name": "many", "spec": "base.yaml", "over": {"command.3": [str(rate) for rate in rates]},
        "stop": {"metric": "loss", "at": [10], "keep": 0.5}, "metric": "score.of", "best": "highest",
    }  # fmt: skip
    for name, spec in (("base", base), ("sweep", sweep)):
        (bench.path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    prepared = prepare(load_job(bench.path / "sweep.yaml"), "local", load_profile(bench.path / "local.yaml"))
    submit(prepared)
    bench.runs.append(prepared.run)
    return prepared.run


def table(bench: Bench, run: RunDir, *options: str) -> str:
    done = xgen("sweep", run.name, "--cluster", str(bench.path / "local.yaml"), *options, cwd=bench.path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_worse_half_ends_early_and_the_table_has_the_best_first(bench: Bench) -> None:
    run = submit_sweep(bench, [2, 1, 4, 99])
    assert exit_code(run) != 0  # the last one fails
    assert finished_shards(run, "") == {0, 1, 2}, tell(run)
    assert given_up_shards(run, "") == {3}
    assert why_ended(run.shard("", 2)) == "at step 10: loss 4 is number 3 of 3"
    outcome = read_attempt_outcome(run.shard("", 2), 1)
    assert outcome is not None
    assert outcome.status == "finished"
    found = json.loads(table(bench, run, "--json"))
    assert [(one["point"], one["state"]) for one in found["points"]] == [
        (1, "finished"), (0, "finished"), (2, "stopped"), (3, "given up"),
    ]  # fmt: skip
    assert found["points"][0]["value"] == 1.0
    assert found["points"][0]["set"] == ["command.3=1"]
    lines = table(bench, run, "--metric", "loss", "--at", "10", "--top", "3").splitlines()
    assert lines[0] == f"{run.name}  3 points: 2 finished, 1 stopped; loss, 10"
    assert lines[2].split() == ["1", "1", "finished", "10", "1"]
    assert lines[-1] == "best: point 1: --set command.3=1"
    assert table(bench, run, "--csv").splitlines()[1] == "1,1,finished,0,1.0,"
    # A resume runs the one that is not done, and it alone.
    (bench.path / "mended").touch()
    done = xgen("resume", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 shards" in done.stdout
    wait_until(lambda: not local.is_alive(run), lambda: tell(run), 60)
    assert read_events(run)[-1].event == "finished"
    assert [len((run.shard("", n).path / "tries").read_text()) for n in range(4)] == [1, 1, 1, 2]


def test_a_command_that_is_no_sweep_says_so(bench: Bench) -> None:
    run = bench.submit(["true"])
    done = xgen("sweep", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 2
    assert done.stderr == f"{run.name} is no sweep but a command; write xgen show {run.name}\n"
