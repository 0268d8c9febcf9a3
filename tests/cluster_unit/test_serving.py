"""Rollout servers start beside the trainer and end with the run, of which each is tried again alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_unit.test_host_arrays import Array
from tests.cluster_unit.test_render import cluster, profile
from xgen.cluster import local, slurm
from xgen.cluster import submit as submission
from xgen.cluster.prepare import Prepared, pinned_images, prepare_again
from xgen.cluster.render import render
from xgen.cluster.status import QueueView, queue_view, run_state, shards_status
from xgen.cluster.submit import launch, left_shards
from xgen.images.resolve import NO_IMAGE, Image
from xgen.runs import EventWriter, RunDir, read_events
from xgen.runs.shards import finished_shards, forget_ended, given_up_shards
from xgen.spec import Rl, dump, load_job

SERVING = "SERVES=1; "


def rl(**servers: Any) -> Rl:
    return Rl.model_validate(
        {
            "kind": "rl",
            "name": "small",
            "model": "tiny",
            "init": "base-abc234",
            "resources": {"nodes": 2, "gpus_per_node": 8, "cpus_per_task": 12, "time": "8h"},
            "container": {"image": "trainer"},
            "prompts": {"tokenizer": "/shared/tokenizer", "sources": {"math": "/shared/math.jsonl"}, "max_tokens": 512},
            "rollout": {"prompts": 4, "max_tokens": 512, "servers": {"array": {"shards": 3}} | servers},
            "rewards": {"math": {"kind": "math"}},
            "train": {"steps": 10, "sequences": 16, "seq_len": "1k", "lr": {"peak": 1e-6}},
        }
    )


class Serving(Array):
    """The same shards, but of a stage that serves the run."""

    def start(self, shard: int, text: str, shards: int = 3, array: int = 12) -> Any:
        return super().start(shard, SERVING + text, shards, array)


@pytest.fixture
def servers(tmp_path: Path) -> Serving:
    return Serving(tmp_path)


def test_the_run_hears_nothing_of_what_serves_it(servers: Serving) -> None:
    assert servers.attempt(0, "finished") == 0
    assert servers.attempt(1, "crashed") == 78
    assert servers.attempt(2, "finished") == 0
    assert servers.said() == []
    assert servers.run.last_attempt() == 0
    assert finished_shards(servers.run, "tag") == {0, 2}
    assert given_up_shards(servers.run, "tag") == {1}


def test_one_that_starts_after_the_end_of_the_run_has_nothing_to_do(servers: Serving) -> None:
    assert servers.start(1, "begin_attempt; echo $ATTEMPT >>$WHOLE/attempts.of.1").wait(timeout=60) == 0
    assert servers.start(0, "is_shard() { false; }; finish_run").wait(timeout=60) == 0
    assert servers.run.ended_file.exists()
    assert servers.start(1, "begin_attempt; echo $ATTEMPT >>$WHOLE/attempts.of.1").wait(timeout=60) == 0
    assert (servers.run.path / "attempts.of.1").read_text() == "1\n"
    assert finished_shards(servers.run, "tag") == {1}


def test_one_that_had_finished_serves_again_once_the_run_is_resumed(servers: Serving) -> None:
    assert servers.attempt(0, "finished") == 0
    forget_ended(servers.run, "tag", finished=True)
    assert finished_shards(servers.run, "tag") == frozenset()
    assert servers.attempt(0, "stopped") == 75
    assert servers.run.shard("tag", 0).last_attempt() == 2


def test_the_job_of_the_trainer_never_waits_for_a_successor_of_a_server(servers: Serving) -> None:
    servers.command("scontrol", f'[ "$1" = requeue ] && echo disabled && exit 1; echo "$*" >>{servers.run.path}/calls')
    servers.command("sbatch", "echo 31")
    assert servers.attempt(0, "stopped") == 0
    assert [line for line in servers.calls().splitlines() if line.startswith("update")] == []
    assert servers.run.job_file(0).read_text() == "12:31\n"
    assert servers.start(0, "begin_attempt", array=31).wait(timeout=60) == 0


def test_both_are_submitted_and_neither_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    scripts: list[str] = []

    class Submitted:
        job_id = 7

    def submit_script(script: str, *_: object) -> Submitted:
        scripts.append(script)
        return Submitted()

    monkeypatch.setattr(slurm, "submit_script", submit_script)
    image = Image("trainer", "sqsh", "/shared/images/trainer.sqsh", "")
    assert launch(run, rl(), cluster("pyxis"), (image, image), "", 0) == ["7", "7"]
    assert ["--array=0-2" in script for script in scripts] == [True, False]
    assert [script for script in scripts if "dependency" in script.split("trap")[0]] == []
    prepared = Prepared(rl(), "c", cluster("pyxis"), run, (image, image), tmp_path)
    assert "JOB_OF_" not in prepared.preview


def test_what_is_left_of_the_servers_is_cancelled_before_a_resumed_run_has_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    done: list[str] = []
    monkeypatch.setattr(submission, "launch", lambda *_, **__: done.append("launched") or ["8", "9"])
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/said\n')
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert submission.resubmit(run, rl(), cluster("pyxis"), 0) == ["8", "9"]
    assert (tmp_path / "said").read_text().endswith(f"--name={run.name}\n")


def settings(text: str, *names: str) -> dict[str, str]:
    return {name: found[1] for name in names if (found := re.search(rf"^(?:#SBATCH --)?{name}=(.*)$", text, re.M))}


def test_a_server_is_one_task_with_the_gpus_of_its_node_and_an_image_of_its_own(tmp_path: Path) -> None:
    job = rl(image="rollout", resources={"gpus_per_node": 4, "cpus_per_task": 6, "time": "4h"})
    trainer, server = (Image(name, "sqsh", f"/shared/images/{name}.sqsh", "") for name in ("trainer", "rollout"))
    run = RunDir(tmp_path / "small-abc234")
    texts = [render(job, cluster("pyxis"), run, image, stage) for stage, image in enumerate((server, trainer))]
    names = ("ntasks-per-node", "cpus-per-task", "gres", "nodes", "NUM_TASKS", "SERVES")
    assert settings(texts[0], *names) == {
        "ntasks-per-node": "1", "cpus-per-task": "24", "gres": "gpu:h100:4", "nodes": "1", "NUM_TASKS": "1",
        "SERVES": "1",
    }  # fmt: skip
    assert settings(texts[1], "NUM_TASKS", "SERVES") == {"NUM_TASKS": "16", "SERVES": "''"}
    assert ["rollout.sqsh" in text for text in texts] == [True, False]
    boxed = profile(container={"runtime": "pyxis", "image_dir": "/i", "python": "/opt/xgen/bin/python"})
    python = [render(job, boxed, run, image, stage) for stage, image in enumerate((server, trainer))]
    assert "python3 -m xgen.cli.task" in python[0]
    assert "/opt/xgen/bin/python -m xgen.cli.task" in python[1]


def test_a_resumed_run_has_all_of_its_servers_in_the_images_that_it_was_submitted_with(tmp_path: Path) -> None:
    job, run = rl(image="rollout"), RunDir(tmp_path / "small-abc234")
    run.create()
    for name in ("0", "2"):
        (run.shards_dir / "rollout/.finished").mkdir(parents=True, exist_ok=True)
        (run.shards_dir / "rollout/.finished" / name).touch()
    assert left_shards(run, job, 0) == [0, 1, 2]
    images = [Image(name, "sqsh", f"/images/{name}.sqsh", "") for name in ("rollout", "trainer")]
    for file, image in zip((run.image_file_of("rollout"), run.image_file), images, strict=True):
        file.write_text(json.dumps(image.to_dict()))
    assert pinned_images(run, job) == tuple(images)
    assert pinned_images(run, rl()) == (images[1], images[1])
    run.image_file.unlink()
    assert pinned_images(run, rl()) == (NO_IMAGE, NO_IMAGE)


def test_a_run_that_has_finished_is_no_pending_one_though_a_server_waits_in_the_queue(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    EventWriter(run, "host", 1, "8").write("started")
    row = slurm.QueueRow("7_1", run.name, "PENDING", "Resources", "gpu", "", "N/A", "0")
    view = QueueView({run.name: row})
    last = read_events(run)[-1]
    assert run_state(run, last, view)[0] == "pending"
    EventWriter(run, "host", 1, "8").write("finished")
    run.ended_file.touch()
    assert run_state(run, read_events(run)[-1], view)[0] == "finished"


def test_a_run_of_which_only_servers_are_left_is_lost(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    EventWriter(run, "host", 1, "8").write("started")
    (run.shards_dir / "rollout/.job-7").mkdir(parents=True)
    server, other = (slurm.QueueRow(f"{job}_1", run.name, "RUNNING", "None", "gpu", "n1", "N/A", "0") for job in (7, 6))
    [started] = read_events(run)
    assert run_state(run, started, queue_view([server]))[0] == "lost"
    # A shard of an array that is an attempt of the run.
    (run.shards_dir / "rollout/.job-6").symlink_to("../../attempts/0001", target_is_directory=True)
    (run.attempts_dir / "0001").mkdir(parents=True)
    assert run_state(run, started, queue_view([other]))[0] == "running"


def test_the_trainer_speaks_for_the_run_and_what_serves_it_does_not(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    EventWriter(run, "host", 1, "8").write("started")
    server = slurm.QueueRow("7_1", run.name, "RUNNING", "None", "gpu", "n1", "N/A", "0")
    trainer = slurm.QueueRow("8", run.name, "PENDING", "Resources", "gpu", "", "N/A", "1")
    assert run_state(run, read_events(run)[-1], queue_view([server, trainer])) == ("pending", "Resources")


def test_all_servers_of_the_local_executor_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, job = RunDir(tmp_path / "small-abc234"), rl()
    run.create()
    for number in (0, 1):
        run.shard("rollout", number).path.mkdir(parents=True)
    monkeypatch.setattr(local, "is_alive", lambda _: True)
    [shards] = shards_status(run, job, QueueView({}))
    assert (shards.running, shards.num_waiting) == ([0, 1], 1)


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ({"resources": {"nodes": 2, "time": "1h"}}, "write nodes: 1, not 2"),
        ({"command": ["serve", "{port}"]}, "write {model} where the server takes it"),
    ],
)
def test_a_server_that_cannot_be_is_refused(servers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        rl(**servers)


def test_without_containers_a_server_is_started_by_the_python_that_runs_xgen() -> None:
    text = render(rl(image="rollout"), profile(container={}), RunDir(Path("/r/small-abc234")), NO_IMAGE, 0)
    assert f"{sys.executable} -m xgen.cli.task" in text


def test_a_resume_takes_a_new_image_for_the_job_whose_key_has_changed(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    for name in ("trainer", "rollout", "other"):
        (tmp_path / f"{name}.sqsh").touch()
    old = {"rollout": "/old/rollout.sqsh", "trainer": "/old/trainer.sqsh"}
    for file, name in ((run.image_file, "trainer"), (run.image_file_of("rollout"), "rollout")):
        file.write_text(json.dumps(Image(name, "sqsh", old[name], "").to_dict()))
    boxed = profile(container={"runtime": "pyxis", "image_dir": str(tmp_path)})
    file = tmp_path / "rl.yaml"
    file.write_text(dump(rl(image="other")))
    loaded = load_job(file)
    again = prepare_again(run, loaded, boxed, changed={"rollout.servers.image"}, first=0)
    assert [image.location for image in again.images] == [str(tmp_path / "other.sqsh"), "/old/trainer.sqsh"]
    assert list(again.image_records(run, new=True)) == [run.image_file_of("rollout")]
    again = prepare_again(run, loaded, boxed, changed={"container.image"}, first=0)
    assert [image.location for image in again.images] == ["/old/rollout.sqsh", str(tmp_path / "trainer.sqsh")]
    again = prepare_again(run, loaded, boxed, changed={"lead"}, first=0)
    assert [image.location for image in again.images] == list(old.values())
