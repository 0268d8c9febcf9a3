"""A service for metrics never holds up a training, and its curves go on after a resume and a rollback."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.train.forked import SPEC
from xgen.plan import check
from xgen.runs import Refused, RunDir
from xgen.spec import Pretrain, load_job, load_profile
from xgen.train.records import RecordFile
from xgen.train.sinks import Sinks
from xgen.train.steps import StepRecord
from xgen.train.validation import DomainLoss, ValidationRecord

BATCH = 256
SECRETS: dict[str, Any] = {"env": {"MY_SETTING": "hunter2"}, "secrets": {"WANDB_API_KEY": {"env": "HUNTER2_KEY"}}}


class Attempt:
    """What rank 0 does of it: sinks that follow, and records of steps with a loss of `losing / step`."""

    def __init__(self, run: RunDir, losing: float = 2.0, **sinks: Any) -> None:
        if not run.path.exists():
            run.create()
        spec = deepcopy(SPEC) | SECRETS | {"sinks": sinks}
        run.spec_file.write_text(yaml.safe_dump(spec))
        self.run, self.losing = run, losing
        self.sinks = Sinks(Pretrain.model_validate(spec), run)
        self._steps = RecordFile(run.metrics_dir / "steps.jsonl")
        self._validations = RecordFile(run.metrics_dir / "validation.jsonl")

    def train(self, first: int, last: int, validated: bool = False) -> Attempt:
        for step in range(first, last + 1):
            loss, tokens = self.losing / step, step * BATCH
            record = StepRecord(step, loss, loss.hex(), 1.5, 1e-3, tokens, 0.5, stage="only", time=1.8e9 + step)
            self._steps.append(record)
            if validated:
                found = {"web": DomainLoss(loss + 1, 10, {})}
                self._validations.append(ValidationRecord(step, "only", tokens, 64, 0.1, found))
        return self

    def close(self, seconds: float = 30) -> None:
        self.sinks.close(seconds)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "nano-aaaaaa")


def scalars(run: RunDir, tag: str, folder: str = "") -> list[tuple[int, float]]:
    """Points as TensorBoard shows them: sorted, and each as often as it is there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.metrics_dir / "tensorboard" / folder), size_guidance={"scalars": 0})
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


def near(points: list[tuple[int, float]]) -> Any:
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


def test_tensorboard_has_all_curves_over_steps_and_tokens_and_the_spec(run: RunDir) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Attempt(run, tensorboard=True).train(1, 5, validated=True).close()
    assert scalars(run, "train/loss") == near([(step, 2 / step) for step in range(1, 6)])
    assert scalars(run, "validation/web") == near([(step, 2 / step + 1) for step in range(1, 6)])
    assert scalars(run, "train/tokens_per_second")[0] == (1, 512)
    assert scalars(run, "train/grad_norm")[0] == (1, 1.5)
    assert scalars(run, "train/learning_rate")[0] == (1, pytest.approx(1e-3))
    by_tokens = near([(256 * step, 2 / step) for step in range(1, 6)])
    assert scalars(run, "by_tokens/train/loss", "by_tokens") == by_tokens
    board = EventAccumulator(str(run.metrics_dir / "tensorboard"))
    board.Reload()
    [event] = board.Tensors("spec/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert "    global_batch: 256" in text or "      global_batch: 256" in text
    assert not {"hunter2", "HUNTER2_KEY"} & set(text.replace(":", " ").split())


def test_a_resume_is_one_curve_without_a_step_twice(run: RunDir) -> None:
    Attempt(run, tensorboard=True).train(1, 10, validated=True).close()
    Attempt(run, tensorboard=True).train(7, 12, validated=True).close()
    for tag in ("train/loss", "validation/web"):
        assert [step for step, _ in scalars(run, tag)] == list(range(1, 13))
    tokens = [step for step, _ in scalars(run, "by_tokens/train/loss", "by_tokens")]
    assert tokens == [256 * step for step in range(1, 13)]


def test_after_a_rollback_the_new_values_take_the_place_of_the_old(run: RunDir) -> None:
    attempt = Attempt(run, tensorboard=True).train(1, 10, validated=True)
    attempt.losing = 4.0
    attempt.train(6, 8, validated=True).close()
    expected = [(step, (2 if step < 6 else 4) / step) for step in range(1, 9)]
    assert scalars(run, "train/loss") == near(expected)
    assert scalars(run, "validation/web") == near([(step, value + 1) for step, value in expected])


def test_a_validation_that_was_all_that_was_left_costs_no_step(run: RunDir) -> None:
    Attempt(run, tensorboard=True).train(1, 3).close()
    attempt = Attempt(run, tensorboard=True)
    attempt._validations.append(ValidationRecord(3, "only", 3 * BATCH, 64, 0.1, {"web": DomainLoss(2.5, 10, {})}))
    attempt.close()
    assert [step for step, _ in scalars(run, "train/loss")] == [1, 2, 3]
    assert scalars(run, "validation/web") == [(3, 2.5)]


def test_what_a_killed_one_did_not_tell_the_next_one_tells(run: RunDir) -> None:
    first = Attempt(run, tensorboard=True).train(1, 4)
    told = run.metrics_dir / "tensorboard" / ".told"
    wait_for(told.exists)
    [process] = first.sinks._processes.values()
    process.send_signal(signal.SIGKILL)
    first.train(5, 9).close()
    assert [step for step, _ in scalars(run, "train/loss")] == [1, 2, 3, 4]
    Attempt(run, tensorboard=True).train(10, 10).close()
    assert [step for step, _ in scalars(run, "train/loss")] == list(range(1, 11))


def test_it_ends_with_a_trainer_that_is_killed(run: RunDir) -> None:
    pid = os.fork()
    if pid == 0:
        attempt = Attempt(run, tensorboard=True)
        (run.path / "pid").write_text(str(next(iter(attempt.sinks._processes.values())).pid))
        attempt.train(1, 3)
        wait_for((run.metrics_dir / "tensorboard" / ".told").exists)
        attempt.train(4, 6)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    follower = Path("/proc", (run.path / "pid").read_text())
    wait_for(lambda: not follower.exists() or "zombie" in (follower / "status").read_text())
    assert [step for step, _ in scalars(run, "train/loss")] == list(range(1, 7))


def test_a_stop_that_reaches_it_too_costs_no_step(run: RunDir) -> None:
    attempt = Attempt(run, tensorboard=True).train(1, 2)
    wait_for((run.metrics_dir / "tensorboard" / ".told").exists)
    [process] = attempt.sinks._processes.values()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    attempt.train(3, 4).close()
    assert [step for step, _ in scalars(run, "train/loss")] == [1, 2, 3, 4]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `wandb` of a test's own, for the process that would import the real one."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "wandb.py"


def test_a_service_that_does_not_start_is_given_up(
    run: RunDir, package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    package.write_text(
        "class Settings:\n    def __init__(self, **k): pass\ndef init(**k): raise ValueError('no key')\n"
    )
    Attempt(run, wandb={"project": "p"}).train(1, 3).close()
    expected = "Weights & Biases is given up, the training goes on: no key\n"
    assert capfd.readouterr().err == expected


def test_a_service_that_hangs_is_left_behind_and_leaves_nothing(
    run: RunDir, package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    package.write_text(
        "import subprocess, time\n"
        "class Settings:\n    def __init__(self, **k): pass\n"
        f"def init(**k):\n    file = open({str(run.path / 'helper')!r}, 'w')\n"
        "    print(subprocess.Popen(['sleep', '600']).pid, end='', file=file, flush=True)\n"
        "    time.sleep(600)\n"
    )
    began = time.monotonic()
    attempt = Attempt(run, wandb={"project": "p"}, tensorboard=True).train(1, 1000)
    assert time.monotonic() - began < 1.0
    helper = run.path / "helper"
    wait_for(lambda: helper.exists() and helper.read_text())
    began = time.monotonic()
    attempt.close(3)
    assert time.monotonic() - began < 10
    assert capfd.readouterr().err == "Weights & Biases is not done after 3 s and is ended\n"
    wait_for(lambda: not Path("/proc", helper.read_text()).exists())
    assert len(scalars(run, "train/loss")) == 1000  # the other one has it all


def test_a_sink_without_its_package_is_refused_at_submission_or_where_the_image_lacks_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    loaded = load_job(ROOT / "jobs/tiny/pretrain.yaml", ["sinks.tensorboard=true", "sinks.wandb.project=p"])
    profile = load_profile(ROOT / "slurm/clusters/local.yaml")
    said = "sinks.wandb: the package wandb is not installed; write: pip install 'xgen[wandb]', or leave the sink out"
    assert said in [f"{one.key}: {one.message}" for one in check(loaded, profile)]
    contained = profile.model_copy(update={"container": profile.container.model_copy(update={"runtime": "apptainer"})})
    assert not [one for one in check(loaded, contained) if one.key.startswith("sinks")]
    with pytest.raises(Refused, match=r"sinks\.wandb: the package wandb is not in the image; install it there, or"):
        Attempt(run, wandb={"project": "p", "mode": "offline"})


def test_wandb_offline_has_one_run_over_all_attempts_and_no_secret(run: RunDir) -> None:
    for first, last in ((1, 4), (3, 6)):
        Attempt(run, wandb={"project": "p", "mode": "offline"}).train(first, last, validated=True).close()
    files = sorted(run.metrics_dir.glob("wandb/offline-run-*/*.wandb"))
    assert [file.name for file in files] == ["run-nano-aaaaaa.wandb"] * 2
    records = [record for file in files for record in wandb_records(file)]
    said = [
        {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    losses = [(values["step"], values["train/loss"]) for values in said if "train/loss" in values]
    assert losses == [(step, pytest.approx(2 / step)) for step in (1, 2, 3, 4, 3, 4, 5, 6)]
    assert [values["step"] for values in said if "validation/web" in values] == [1, 2, 3, 4, 3, 4, 5, 6]
    assert {r.run.run_id for r in records if r.HasField("run")} == {"nano-aaaaaa"}
    config = {item.key for r in records if r.HasField("run") for item in r.run.config.update}
    assert {"model", "stages", "optimizer"} <= config
    assert not {"env", "secrets"} & config
    assert not [file for file in files if b"hunter2" in file.read_bytes().lower()]


def wandb_records(file: Path) -> list[Any]:
    """Of a .wandb file: seven bytes, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, records, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def wait_for(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
