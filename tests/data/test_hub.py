"""Data sets that `datasets` streams: how large they are is known before they are read, and a network may fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data import test_fetch
from tests.data.test_fetch import Server
from xgen.data.curate.steps.plan import make_plan
from xgen.data.units import plan_units
from xgen.spec import Curate

server = test_fetch.server
SCRIPT = """
import sys, time
from pathlib import Path
import datasets
from xgen.data import readers
from xgen.data.units import plan_units
datasets.config.STREAMING_READ_MAX_RETRIES = 1
plan = plan_units(["hf:org/web"])
records = list(readers.read_unit(plan.units[0], readers.Keys(), readers.Defaults("web", "crawl")))
print(plan.num_bytes, len(records), flush=True)
time.sleep = lambda seconds: None  # between two tries
def cut(name, open_stream=readers.open_stream):
    stream = open_stream(name)
    Path(sys.argv[1]).touch()
    return stream
readers.open_stream = cut
try:
    list(readers.read_unit(plan.units[0], readers.Keys(), readers.Defaults("web", "crawl")))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """1 MB in two files, and a split beside them."""
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        lines = [json.dumps({"text": f"{name} {number} " * 20}) for number in range(1000)]
        (tmp_path / "hub" / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path / "hub"


def test_buckets_of_keys_follow_from_the_size_that_datasets_knows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xgen.data.curate.steps.plan._BUCKET_BYTES", 10_000)
    (tmp_path / "tokenizer.json").touch()

    def buckets(*paths: str) -> int:
        base = {"kind": "curate", "name": "small", "out": "/out", "resources": {"time": "5m"}}
        inputs = [{"path": path, "domain": "web"} for path in paths]
        more = {"tokenizer": str(tmp_path / "tokenizer.json"), "mixtures": {"all": {"tokens": 1000}}}
        job = Curate.model_validate({**base, **more, "inputs": inputs})
        return make_plan(job, {}).num_buckets

    train = [str(path) for path in sorted((folder / "data").glob("train*"))]
    plan = plan_units([f"hf:{folder}:train"])
    assert plan.num_bytes == sum(Path(path).stat().st_size for path in train) > 600_000 and len(plan.units) == 2
    assert buckets(f"hf:{folder}:train") == buckets(*train) == 128
    assert buckets(f"hf:{folder}:test") == 64


def test_a_set_of_the_hub_has_a_size_and_a_network_that_fails_is_no_damage(server: Server, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    server.broken = cut.exists
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, cut], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    facts, error = done.stdout.splitlines()
    assert facts == f"{len(server.files['data/train-00000.jsonl'])} 20000"
    assert (
        error.startswith("InterruptedBuildError hf:org/web: cannot be reached: ") and "run it again; without" in error
    )
