"""What of the host is in the container of a post-training, and of an export and an evaluation of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from xgen.cluster.mounts import all_mounts, inputs_of
from xgen.runs import RunDir
from xgen.runs.origin import Beginning
from xgen.spec import Evaluate, Export, Profile, Sft, Work

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


def evaluate(**keys: Any) -> Evaluate:
    recall = {"lengths": [64], "samples": 1}
    spec = {"kind": "evaluate", "name": "scores", "resources": {"time": "1h"}, "recall": recall, **keys}
    return TypeAdapter(Evaluate).validate_python(spec)


def mounted(job: Any, run: RunDir) -> dict[str, bool]:
    """Whether each folder is read-only, but for those that every job has."""
    own = {str(run.path), str(run.code_dir), str(run.discovery_file.parent)}
    return {m.source: m.read_only for m in all_mounts(job, PROFILE, run) if m.source not in own}


def test_nodes_must_see_what_the_work_reads_and_is_here(tmp_path: Path) -> None:
    job = TypeAdapter(Sft).validate_python(sft(tmp_path))
    assert inputs_of(job, PROFILE) == (str(tmp_path), str(tmp_path / "words"))  # its run and its store are to come


def test_a_post_training_has_what_it_reads_and_the_folder_it_writes_beside(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs/chat-bbbbbb")
    assert mounted(TypeAdapter(Sft).validate_python(sft(tmp_path)), run) == {
        str(tmp_path / "words"): True,
        str(tmp_path): True,  # of files that are yet to come
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


def test_an_evaluation_reads_the_run_that_it_scores_and_its_tokenizer_and_writes_only_its_own_and_the_cache(
    tmp_path: Path,
) -> None:
    scored = RunDir(tmp_path / "runs/chat-aaaaaa")
    scored.create()
    scored.spec_file.write_text(yaml.safe_dump(sft(tmp_path)))
    (tmp_path / "math.jsonl").touch()  # of its data, which may be gone, this is there and held.jsonl is not
    essays, sets = tmp_path / "essays/all.txt", tmp_path / "sets"
    essays.parent.mkdir()
    essays.touch()
    job = evaluate(
        checkpoints={"run": "chat-aaaaaa", "every": 1, "follow": True},
        needles={"haystack": str(essays)},
        harness={"tasks": {"arc_easy": None}, "datasets": str(sets)},
        cache=str(tmp_path / "caches/counts"),
    )
    assert mounted(job, RunDir(tmp_path / "runs/scores-bbbbbb")) == {
        str(scored.path): True,
        str(tmp_path / "words"): True,
        str(tmp_path): True,  # of math.jsonl
        str(essays.parent): True,
        str(sets): True,
        str(tmp_path / "caches"): False,
    }


def test_an_evaluation_of_adapters_that_are_yet_to_be_trained_has_what_they_will_be_of(tmp_path: Path) -> None:
    base, tuned = (RunDir(tmp_path / "runs" / name) for name in ("base-aaaaaa", "lora-bbbbbb"))
    tuned.create()
    tuned.spec_file.write_text(yaml.safe_dump(sft(tmp_path, lora={"rank": 2, "alpha": 4})))
    job = evaluate(checkpoints={"run": "lora-bbbbbb", "every": 1, "follow": True})
    found = mounted(job, RunDir(tmp_path / "runs/scores-cccccc"))
    assert found[str(base.path)] and found[str(tuned.path)]
    of_folder = sft(tmp_path, lora={"rank": 2, "alpha": 4}, init={"hf": str(tmp_path / "hub/model")})
    tuned.spec_file.write_text(yaml.safe_dump(of_folder))
    assert mounted(job, RunDir(tmp_path / "runs/scores-cccccc"))[str(tmp_path / "hub/model")]


def test_an_evaluation_of_a_folder_reads_that_and_with_a_tokenizer_of_its_own_the_runs_template(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs/scores-bbbbbb")
    assert mounted(evaluate(checkpoints={"hf": str(tmp_path / "hub")}), run) == {str(tmp_path / "hub"): True}
    scored, template = RunDir(tmp_path / "runs/chat-aaaaaa"), tmp_path / "templates/chat.jinja"
    template.parent.mkdir()
    template.touch()
    scored.create()
    spec = sft(tmp_path)
    spec["data"]["template"] = str(template)
    scored.spec_file.write_text(yaml.safe_dump(spec))
    found = mounted(evaluate(checkpoints="chat-aaaaaa", tokenizer=str(tmp_path / "other")), run)
    assert found[str(tmp_path / "other")] and found[str(template.parent)]


def test_an_environment_with_lm_eval_is_there_unless_it_is_one_of_the_image(tmp_path: Path) -> None:
    python = tmp_path / "lm-eval/bin/python"
    job = evaluate(checkpoints={"hf": "/hub"}, harness={"tasks": {"arc_easy": None}, "python": str(python)})
    run = RunDir(tmp_path / "runs/scores-bbbbbb")
    assert mounted(job, run) == {"/hub": True}
    python.parent.mkdir(parents=True)
    (tmp_path / "lm-eval/pyvenv.cfg").touch()
    assert mounted(job, run) == {"/hub": True, str(tmp_path / "lm-eval"): True}


def test_a_file_that_a_step_before_is_yet_to_make_comes_with_its_folder(tmp_path: Path) -> None:
    step = tmp_path / "runs/p-texts-aaaaaa"
    keys: dict[str, Any] = {"validation": None, "data": {"tokenizer": str(step / "words"), "sources": {}}}
    keys["data"]["sources"] = {"math": str(step / "chat/math.jsonl"), "all": str(step / "more")}
    job = TypeAdapter(Sft).validate_python(sft(tmp_path, **keys))
    found = mounted(job, RunDir(tmp_path / "runs/p-sft-aaaaaa"))
    assert {str(step / "words"), str(step / "chat"), str(step / "more")} <= found.keys()
