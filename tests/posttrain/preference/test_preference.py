"""Preference jobs as they run: reference, training, held-out pairs, stops, layouts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.posttrain.preference.planted import SEQ_LEN, PreferenceRun, spec_of
from xgen.posttrain.preference import reference


def layout(steps: int = 8, seq_len: int = SEQ_LEN, **more: Any) -> dict[str, Any]:
    return {"steps": steps, "sequences": 4, "seq_len": seq_len, "lr": {"peak": 2e-3, "warmup": 2}, **more}


def losses(run: PreferenceRun) -> list[float]:
    return [float.fromhex(loss) for loss in run.losses().values()]


def test_a_planted_preference_is_learnt(inputs: Path, tmp_path: Path) -> None:
    run = PreferenceRun(tmp_path, spec_of(inputs, train=layout(steps=24)))
    run.all_steps()
    before, after = run.validations()
    assert (before["step"], after["step"]) == (0, 24)
    assert before["accuracy"] == pytest.approx(0.5, abs=0.15)
    assert before["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert after["accuracy"] >= 0.8
    assert after["loss"] < 0.5
    assert after["margin"] == pytest.approx(after["chosen_reward"] - after["rejected_reward"], rel=1e-4)
    assert after["pairs"] == 60
    assert run.extra("accuracy")[-1] >= 0.8
    assert run.extra("reward_margin")[-1] > 0.3


def test_a_frozen_copy_gives_what_was_stored(frozen: PreferenceRun, undisturbed: PreferenceRun) -> None:
    assert losses(frozen) == pytest.approx(losses(undisturbed), abs=1e-6)
    assert frozen.validations()[-1]["loss"] == pytest.approx(undisturbed.validations()[-1]["loss"], abs=1e-6)


@pytest.mark.parametrize("kind", ["stored", "frozen"])
def test_a_stopped_training_goes_on_bit_for_bit(
    kind: str, inputs: Path, undisturbed: PreferenceRun, frozen: PreferenceRun, tmp_path: Path
) -> None:
    expected = {"stored": undisturbed, "frozen": frozen}[kind]
    run = PreferenceRun(tmp_path, spec_of(inputs, reference=kind))
    for name in ("prepare", "reference") if kind == "stored" else ("prepare",):
        run.step(name)
    [stopped] = run.step("train", run.signal_at(5, 0))
    assert (stopped.status, stopped.step) == ("stopped", max(run.losses()))
    [finished] = run.step("train")
    assert finished.status == "finished"
    assert run.losses() == expected.losses()
    assert run.validations()[-1] == expected.validations()[-1]


def test_losses_do_not_depend_on_the_layout(inputs: Path, tmp_path: Path) -> None:
    """FSDP and context parallelism together, and tensor parallelism, with the reference that each computes itself."""
    found = {}
    layouts = {4: {"fsdp": 2, "cp": 2}, 2: {"tp": 2}, 1: {}}
    for kind, world_size in (("stored", 1), ("stored", 4), ("frozen", 4), ("stored", 2)):
        spec = spec_of(
            inputs,
            reference=kind,
            train=layout(3, 256, parallelism=layouts[world_size]),
            resources={"nodes": 1, "gpus_per_node": world_size, "time": "5m"},
        )
        run = PreferenceRun(tmp_path / f"{kind} {world_size}", spec, world_size)
        run.all_steps()
        found[kind, world_size] = [*losses(run), *run.extra("reward_margin"), run.validations()[-1]["loss"]]
    for values in found.values():
        assert values == pytest.approx(found["stored", 1], abs=2e-5)


@pytest.mark.slow
def test_adapters_have_the_weights_below_them_as_their_reference(inputs: Path, tmp_path: Path) -> None:
    """Also when they are no more what they were at the beginning."""
    found = {}
    for kind in ("stored", "frozen"):
        spec = spec_of(inputs, reference=kind, lora={"rank": 8, "alpha": 16}, train=layout(6))
        run, stopped = PreferenceRun(tmp_path / kind, spec), PreferenceRun(tmp_path / f"{kind}, stopped", spec)
        run.all_steps()
        for name in ("prepare", "reference") if kind == "stored" else ("prepare",):
            stopped.step(name)
        assert [o.status for o in stopped.step("train", stopped.signal_at(3, 0))] == ["stopped"]
        assert [o.status for o in stopped.step("train")] == ["finished"]
        assert stopped.losses() == run.losses()
        found[kind] = losses(run)
    assert found["frozen"] == pytest.approx(found["stored"], abs=1e-6)
    assert found["stored"][0] == pytest.approx(np.log(2), abs=1e-5)
    assert found["stored"][-1] < 0.68


def test_simpo_has_no_reference_and_needs_none(inputs: Path, tmp_path: Path) -> None:
    loss = {"kind": "simpo", "beta": 2.0, "margin": 0.5}
    run = PreferenceRun(tmp_path, spec_of(inputs, loss=loss, train=layout(2)))
    run.all_steps()
    assert len(run.losses()) == 2
    assert not (run.whole.path / "reference").exists()


def test_a_killed_reference_keeps_its_blocks_and_the_training_waits_for_all_of_them(
    inputs: Path, undisturbed: PreferenceRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_TOKENS", 2 * SEQ_LEN)
    run = PreferenceRun(tmp_path, spec_of(inputs))
    run.step("prepare")

    def die_in_the_third_block(rank: int) -> None:
        del rank
        write = reference.Block.write

        def writing(block: reference.Block, entries: Any) -> None:
            if len(list(block.file.parent.parent.rglob("*.npy"))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            write(block, entries)

        reference.Block.write = writing  # type: ignore[method-assign]

    run.step("reference", in_rank=die_in_the_third_block, may_die=True)
    done = {file: file.stat().st_mtime_ns for file in (run.whole.path / "reference").rglob("*.npy")}
    assert len(done) == 2
    [refused] = run.step("train")
    assert refused.status == "refused"
    assert "lacks" in refused.reason
    assert "xgen resume nano-dpo-aaaaaa" in refused.reason
    [finished] = run.step("reference")
    assert finished.status == "finished"
    assert {file: file.stat().st_mtime_ns for file in done} == done
    [trained] = run.step("train")
    assert trained.status == "finished"
    assert losses(run) == pytest.approx(losses(undisturbed), abs=1e-5)


def test_numbers_of_other_weights_are_not_taken(inputs: Path, undisturbed: PreferenceRun, tmp_path: Path) -> None:
    """The files are there, and whole."""
    from xgen.data.chat.prepare import chat_store
    from xgen.data.chat.store import ChatStore
    from xgen.runs import Refused
    from xgen.runs.origin import read_beginning
    from xgen.spec import Preference, load_resolved

    job = load_resolved(undisturbed.whole.spec_file)
    assert isinstance(job, Preference)
    store, beginning = ChatStore.open(chat_store(job, undisturbed.whole.path)), read_beginning(undisturbed.whole)
    assert beginning is not None
    values = reference.read_reference(undisturbed.whole, store, beginning)
    assert values.shape == (220, 2)
    assert bool((values < 0).all())
    with pytest.raises(Refused, match="lacks 220 of the 220 pairs"):
        reference.read_reference(undisturbed.whole, store, beginning.model_copy(update={"fingerprint": "other"}))


def test_a_broken_block_is_named(undisturbed: PreferenceRun, tmp_path: Path) -> None:
    from xgen.runs import Refused

    [file] = (undisturbed.whole.path / "reference").rglob("held-out/*.npy")
    torn = tmp_path / "torn.npy"
    torn.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Refused, match=r"torn.npy cannot be read .*; remove it, and write xgen resume"):
        reference._read(torn)
