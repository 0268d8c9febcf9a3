"""`xgen data audit`: what a run says it consumed is held against what its spec and its stores give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import xgen
from tests.conftest import ROOT
from xgen.data import MODULUS, batch_digest, samples_of
from xgen.runs import RunDir
from xgen.spec import Pretrain, load_resolved
from xgen.train.manifest import Manifest

STEPS, PER_STEP = 12, 4


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """What a training of twelve steps leaves of its data, with checkpoints at 6 and 12."""
    made = RunDir(tmp_path / "tiny-aaaaaa")
    made.create()
    store = tmp_path / "store"
    shutil.copytree(ROOT / ".cache/tiny-store", store)
    spec: dict[str, Any] = {
        "kind": "pretrain",
        "name": "tiny",
        "resources": {"time": "5m"},
        "model": "tiny",
        "data": {"store": str(store), "mixtures": {"broad": {"code": 0.5, "literature": {"weight": 0.5}}}},
        "stages": [
            {
                "name": "s",
                "tokens": STEPS * PER_STEP * 64,
                "seq_len": 64,
                "global_batch": PER_STEP * 64,
                "lr": {"peak": 1},
            }
        ],
    }
    made.spec_file.write_text(yaml.safe_dump(spec))
    job = load_resolved(made.spec_file)
    assert isinstance(job, Pretrain)
    samples, total = samples_of(job), 0
    with (made.metrics_dir / "steps.jsonl").open("w") as file:
        for step in range(1, STEPS + 1):
            first = (step - 1) * PER_STEP
            digest = batch_digest(first, samples.batch(first, PER_STEP))
            total = (total + digest) % MODULUS
            file.write(json.dumps({"step": step, "first_sample": first, "data": f"{digest:016x}"}) + "\n")
            if step % 6 == 0:
                folder = made.checkpoints_dir / f"step-{step}"
                folder.mkdir()
                manifest = Manifest(
                    step=step, tokens=0, next_sample=step * PER_STEP, data_digest=f"{total:016x}", world_size=1,
                    data=samples.fingerprint, torch="", torchtitan="", files=(),
                )  # fmt: skip
                manifest.write(folder)
    return made


def audit(run: RunDir, *options: str) -> tuple[int, dict[str, Any]]:
    done = xgen("data", "audit", str(run.path), "--json", *options)
    return done.returncode, json.loads(done.stdout)


def change(run: RunDir, step: int, **changes: object) -> None:
    file = run.metrics_dir / "steps.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[step - 1] |= changes
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_run_that_consumed_what_its_spec_says_passes(run: RunDir) -> None:
    code, found = audit(run)
    assert (code, found["difference"]) == (0, "")
    assert (found["steps"], found["samples"], found["tokens"], found["totals"]) == (12, 48, 48 * 64, 2)
    code, found = audit(run, "--from", "5", "--to", "7")
    assert (code, found["steps"], found["totals"]) == (0, 3, 0)


def test_first_step_that_differs_is_named(run: RunDir) -> None:
    change(run, 8, data="0" * 16)
    change(run, 10, data="1" * 16)
    code, found = audit(run)
    assert code == 1
    assert found["difference"].startswith("step 8 (samples 28 to 31, window 0); recorded 0000000000000000, now ")


def test_sample_that_was_seen_twice_in_place_of_another_is_found(run: RunDir) -> None:
    lines = (run.metrics_dir / "steps.jsonl").read_text().splitlines()
    change(run, 3, data=json.loads(lines[1])["data"])
    assert audit(run)[1]["difference"].startswith("step 3 (samples 8 to 11")


def test_step_without_a_record_is_covered_by_the_total_of_the_next_checkpoint(run: RunDir) -> None:
    file = run.metrics_dir / "steps.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2] + lines[4:]))  # a disk that was full for two steps
    code, found = audit(run)
    assert (code, found["unrecorded"], found["totals"]) == (0, 2, 2)
    manifest = run.checkpoints_dir / "step-6/manifest.json"
    wrong = manifest.read_text().replace('"data_digest": "', '"data_digest": "f')
    manifest.write_text(wrong)
    assert "the total of checkpoint step-6" in audit(run)[1]["difference"]


def test_repeated_step_counts_as_it_was_trained_last(run: RunDir) -> None:
    file = run.metrics_dir / "steps.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    broken = lines[4].replace('"data": "', '"data": "0')
    file.write_text("".join([*lines[:4], broken, *lines[4:], '{"step": 13, "fir']))
    assert audit(run)[0] == 0


def test_store_that_was_built_anew_is_named(run: RunDir, tmp_path: Path) -> None:
    meta = tmp_path / "store/meta.json"
    document = json.loads(meta.read_text())
    document["files"]["parts/00000-code/tokens.bin"]["sha256"] = "0" * 64
    meta.write_text(json.dumps(document))
    assert "a store was changed" in audit(run)[1]["difference"]


def test_token_that_was_changed_in_place_is_found(run: RunDir, tmp_path: Path) -> None:
    for part in ("00000-code", "00002-literature"):
        file = tmp_path / f"store/parts/{part}/tokens.bin"
        file.write_bytes(bytes(file.stat().st_size))
    code, found = audit(run)
    assert code == 1
    assert found["difference"].startswith("step 1 (")


def test_run_without_steps_and_runs_of_other_kinds_are_refused(run: RunDir) -> None:
    (run.metrics_dir / "steps.jsonl").unlink()
    done = xgen("data", "audit", str(run.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "has not finished a step" in done.stderr
