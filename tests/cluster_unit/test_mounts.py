"""What of the host is in the container of a post-training, and of an export of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from xgen.cluster.mounts import all_mounts
from xgen.runs import RunDir
from xgen.runs.origin import Beginning
from xgen.spec import Export, Profile, Sft, Work

MODEL = {"name": "m", "dim": 64, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "ffn_dim": 64, "vocab_size": 300}
PROFILE = Profile.model_validate({"run_root": "/runs", "partitions": {"gpu": {}}})


def sft(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    tokenizer = tmp_path / "words/tokenizer.json"
    tokenizer.parent.mkdir(exist_ok=True)
    tokenizer.touch()
    return {
        "kind": "sft",
        "name": "chat",
        "resources": {"time": "1h"},
        "model": MODEL,
        "init": "base-aaaaaa",
        "data": {
            "tokenizer": str(tokenizer),
            "sources": {"math": str(tmp_path / "math.jsonl"), "code": "hf:org/code", "web": "https://x/y.jsonl"},
            "out": str(tmp_path / "stores/chat"),
        },
        "validation": {"sources": {"held": str(tmp_path / "held.jsonl")}},
        "train": {"steps": 2, "sequences": 2, "seq_len": 64, "lr": {"peak": 1e-4}},
        **keys,
    }


def mounted(job: Any, run: RunDir) -> dict[str, bool]:
    """Whether each folder is read-only, but for those that every job has."""
    own = {str(run.path), str(run.code_dir), str(run.discovery_file.parent)}
    return {m.source: m.read_only for m in all_mounts(job, PROFILE, run) if m.source not in own}


def test_a_post_training_has_what_it_reads_and_the_folder_it_writes_beside(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs/chat-bbbbbb")
    assert mounted(TypeAdapter(Sft).validate_python(sft(tmp_path)), run) == {
        str(tmp_path / "words"): True,
        str(tmp_path / "math.jsonl"): True,
        str(tmp_path / "held.jsonl"): True,
        str(tmp_path / "runs/base-aaaaaa"): True,
        str(tmp_path / "stores"): False,
    }


def test_files_come_with_their_folders_for_mount_points_that_are_made_are_folders(tmp_path: Path) -> None:
    held_out = tmp_path / "apart/held.jsonl"
    held_out.parent.mkdir()
    held_out.touch()
    spec = sft(tmp_path, validation={"sources": {"held": str(held_out)}})
    found = mounted(TypeAdapter(Sft).validate_python(spec), RunDir(tmp_path / "runs/chat-bbbbbb"))
    assert found[str(held_out.parent)] and str(held_out) not in found


def test_what_adapters_are_of_is_there_too_also_for_an_export(tmp_path: Path) -> None:
    base, tuned = (RunDir(tmp_path / "runs" / name) for name in ("base-aaaaaa", "lora-bbbbbb"))
    tuned.create()
    tuned.spec_file.write_text(yaml.safe_dump(sft(tmp_path, lora={"rank": 2, "alpha": 4})))
    Beginning(run=base.name, path=str(base.path), step=4, fingerprint="f", time=0.0).write(tuned)
    further = TypeAdapter(Sft).validate_python(sft(tmp_path, init="lora-bbbbbb"))
    run = RunDir(tmp_path / "runs/more-cccccc")
    found = mounted(further, run)
    assert found[str(base.path)] and found[str(tuned.path)]
    export: Work = TypeAdapter(Export).validate_python(
        {"kind": "export", "name": "out", "resources": {"time": "1h"}, "run": "lora-bbbbbb"}
    )
    found = mounted(export, run)
    assert found[str(base.path)] and not found[str(tuned.path)] and found[str(tmp_path / "words")]
    assert json.loads((tuned.path / "init.json").read_text())["step"] == 4
