"""The weights that a post-training begins with: whose they are, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.posttrain.tuned import MODEL, Tuning, sft_spec
from tests.train.folders import damage
from tests.train.forked import Training
from xgen.runs import RunDir


def one_step(folder: Path, name: str, world_size: int = 1, **keys: Any) -> Tuning:
    spec = sft_spec(folder)
    spec = {**spec, "train": {**spec["train"], "steps": 1}, **keys}
    return Tuning(RunDir(folder / f"{name}-aaaaaa"), spec, world_size)


def exported(base: Training, folder: Path) -> Path:
    from contextlib import nullcontext

    from xgen.train.export import export

    out = folder / "hf"
    if not out.exists():
        export(base.run, None, out, None, "float32", lambda _: nullcontext(lambda _: None))
    return out


def test_a_hugging_face_folder_gives_the_same_as_the_run_that_it_is_of(
    base: Training, undisturbed: Tuning, folder: Path
) -> None:
    out = exported(base, folder)
    tuning = one_step(folder, "fromhf", 2, init={"hf": str(out)})
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    assert tuning.losses()[1] == undisturbed.losses()[1]
    assert json.loads((tuning.run.path / "init.json").read_text())["path"] == str(out)


def test_an_attempt_after_the_first_takes_the_same_step(base: Training, undisturbed: Tuning, folder: Path) -> None:
    """Though the other run has saved again meanwhile."""
    tuning = one_step(folder, "again")
    (folder / "moving-aaaaaa").mkdir()
    shutil.copytree(base.run.path, folder / "moving-aaaaaa", dirs_exist_ok=True)
    tuning.change("init", "moving-aaaaaa")
    tuning.change("train", "steps", 2)
    moving = RunDir(folder / "moving-aaaaaa")
    from xgen.runs.origin import Beginning
    from xgen.train.manifest import manifest_fingerprint

    first = moving.checkpoints_dir / "step-2"
    Beginning(run=moving.name, path=str(moving.path), step=2, fingerprint=manifest_fingerprint(first), time=0.0).write(
        tuning.run
    )
    shutil.copytree(first, moving.checkpoints_dir / "step-3")
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    assert json.loads((tuning.run.path / "init.json").read_text())["step"] == 2
    (moving.checkpoints_dir / "step-2/manifest.json").unlink()
    shutil.rmtree(tuning.run.checkpoints_dir)
    tuning.run.checkpoints_dir.mkdir()
    outcomes = tuning.go()
    assert outcomes[0].status == "refused" and "is gone, from which this run began" in outcomes[0].reason


def test_the_newest_checkpoint_that_verifies_is_taken(base: Training, undisturbed: Tuning, folder: Path) -> None:
    parent = RunDir(folder / "broken-aaaaaa")
    shutil.copytree(base.run.path, parent.path)
    shutil.copytree(parent.checkpoints_dir / "step-2", parent.checkpoints_dir / "step-4")
    damage(parent.checkpoints_dir / "step-4", "__0_0.distcp")
    tuning = one_step(folder, "newest", init="broken-aaaaaa")
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    assert json.loads((tuning.run.path / "init.json").read_text())["step"] == 2
    tuning = one_step(folder, "named", init={"run": "broken-aaaaaa", "step": 4})
    (outcome,) = tuning.go()
    assert outcome.status == "refused"
    assert "no checkpoint of broken-aaaaaa verifies (step-4: __0_0.distcp: its checksum" in outcome.reason


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no run": ({"init": "nobody-aaaaaa"}, "init.run: "),
    "no such step": ({"init": {"run": "base-aaaaaa", "step": 7}}, "init.step: base-aaaaaa has no complete checkpoint"),
    "another size": (
        {"model": {**MODEL, "ffn_dim": 128}},
        "model.ffn_dim: 128, and init.run base-aaaaaa has 64; write the model that it is of",
    ),
    "no folder": ({"init": {"hf": "/nowhere"}}, "init.hf: /nowhere/config.json: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_begun_from_is_refused_in_one_line(undisturbed: Tuning, folder: Path, what: str) -> None:
    keys, message = REFUSED[what]
    (outcome,) = one_step(folder, "refused" + what.replace(" ", ""), **keys).go()
    assert outcome.status == "refused"
    assert message in outcome.reason and "\n" not in outcome.reason


def rewrite(file: Path) -> None:
    """The same content in other bytes."""
    file.write_text(json.dumps(json.loads(file.read_text())))


CHANGES: dict[str, Callable[[Path], None]] = {
    "gone": shutil.rmtree,
    "changed": lambda folder: rewrite(folder / "config.json"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_adapters_are_refused_without_the_weights_that_they_are_of(
    base: Training, undisturbed: Tuning, folder: Path, what: str
) -> None:
    own = folder / f"hf-{what}"
    shutil.copytree(exported(base, folder), own)
    tuning = one_step(folder, f"adapters{what}", init={"hf": str(own)}, lora={"rank": 2, "alpha": 4})
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    tuning.change("train", "steps", 2)
    CHANGES[what](own)
    (outcome,) = tuning.go()
    assert outcome.status == "refused" and str(own) in outcome.reason, outcome.reason


def test_the_first_of_several_shards_says_what_all_begin_with(tmp_path: Path) -> None:
    from xgen.runs.origin import Beginning, read_beginning

    run = RunDir(tmp_path)
    first, second = (Beginning(run="base", path="/base", step=n, fingerprint=str(n), time=0.0) for n in (2, 4))
    assert first.write(run) == first == second.write(run) == read_beginning(run)
    assert [path.name for path in tmp_path.iterdir()] == ["init.json"]
