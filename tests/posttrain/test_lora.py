"""Adapters: what they learn, what of them is saved, what they are merged into."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.posttrain.tuned import MODEL, STEPS, Tuning, assert_same_after_a_stop, sft_spec
from tests.train.forked import Training
from xgen.model.hf import import_hf
from xgen.runs import RunDir
from xgen.spec import Lora, ModelSpec

LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def adapted(base: Training, undisturbed: Tuning) -> Tuning:
    folder = base.run.path.parent
    tuning = Tuning(RunDir(folder / "adapted-aaaaaa"), sft_spec(folder, lora=LORA))
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    return tuning


def exported(run: RunDir, out: Path) -> Path:
    from xgen.train.export import export

    return export(run, None, out, None, "float32", lambda _: nullcontext(lambda _: None)).folder


def test_they_lower_the_held_out_loss(adapted: Tuning) -> None:
    losses = [line["domains"]["again"]["loss"] for line in adapted.validations()]
    assert losses[0] > losses[1] > losses[2]


def test_a_checkpoint_holds_them_and_nothing_of_the_frozen_rest(adapted: Tuning, undisturbed: Tuning) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    from xgen.model.lora import adapter_shapes

    folder = adapted.run.checkpoints_dir / f"step-{STEPS}"
    entries = FileSystemReader(folder).read_metadata().state_dict_metadata
    shapes = adapter_shapes(ModelSpec.model_validate(MODEL), Lora.model_validate(LORA))
    assert {name.removeprefix("model.") for name in entries if name.startswith("model.")} == set(shapes)
    moments = [name for name in entries if name.endswith("exp_avg")]
    assert len(moments) == len(shapes)

    def size(run: RunDir) -> int:
        manifest = json.loads((run.checkpoints_dir / f"step-{STEPS}/manifest.json").read_text())
        return sum(file["size"] for file in manifest["files"] if file["name"].endswith(".distcp"))

    assert size(adapted.run) < 0.15 * size(undisturbed.run)


def test_after_a_stop_they_are_the_same_bit_for_bit(adapted: Tuning, folder: Path) -> None:
    assert_same_after_a_stop(adapted, Tuning(RunDir(folder / "halted-aaaaaa"), sft_spec(folder, lora=LORA)))


@pytest.mark.parametrize(("world_size", "parallelism"), [(1, {}), pytest.param(2, {"tp": 2}, marks=pytest.mark.slow)])
def test_they_are_restored_into_any_layout(
    adapted: Tuning, folder: Path, world_size: int, parallelism: dict[str, int]
) -> None:
    """The last steps again, from the checkpoint before them, which two ranks of FSDP wrote."""
    import shutil

    run = RunDir(folder / f"moved{world_size}-aaaaaa")
    other = Tuning(run, sft_spec(folder, lora=LORA), world_size, **parallelism)
    shutil.copytree(adapted.run.checkpoints_dir / "step-4", other.run.checkpoints_dir / "step-4")
    shutil.copy(adapted.run.path / "init.json", other.run.path)
    assert {o.status for o in other.go()} == {"finished"}, other._log()
    for step in (5, 6):
        found, expected = (float.fromhex(one.losses()[step]) for one in (other, adapted))
        assert found == pytest.approx(expected, abs=2e-5)


def test_without_a_word_of_what_they_are_of_they_are_refused(adapted: Tuning, folder: Path) -> None:
    import shutil

    lost = Tuning(RunDir(folder / "lost-aaaaaa"), sft_spec(folder, lora=LORA), 1)
    shutil.copytree(adapted.run.checkpoints_dir / "step-4", lost.run.checkpoints_dir / "step-4")
    (lost.run.path / "init.json").write_text("{")
    (outcome,) = lost.go()
    assert outcome.status == "refused" and "which says what the adapters are of, is gone" in outcome.reason


def test_the_export_is_the_sum_and_predicts_what_the_training_measured(
    base: Training, adapted: Tuning, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    out = exported(adapted.run, tmp_path / "merged")
    _, merged = import_hf(out)
    _, frozen = import_hf(exported(base.run, tmp_path / "base"))
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, frozen[name])}
    matrices = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
    assert changed == {name for name in merged if name.split(".")[-2] in matrices}
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert held_out_loss(model, adapted) == pytest.approx(
        adapted.validations()[-1]["domains"]["again"]["loss"], abs=1e-5
    )


def held_out_loss(model: object, tuning: Tuning) -> float:
    """As transformers computes it, a conversation after the other: packing hides all others from each."""
    import torch

    from xgen.data.chat.prepare import chat_store
    from xgen.data.chat.store import ChatStore
    from xgen.spec import Sft, load_resolved

    job = load_resolved(tuning.run.spec_file)
    assert isinstance(job, Sft)
    source = ChatStore.open(chat_store(job, tuning.run.path)).source("held-out", "again")
    total, count = 0.0, 0
    for number in range(source.num_records):
        tokens, learnt = source.conversation(number)
        ids = torch.tensor(tokens.tolist())[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]  # type: ignore[operator]
        wanted = torch.where(torch.tensor(learnt.tolist(), dtype=torch.bool), ids[0], -100)[1:]
        total += float(torch.nn.functional.cross_entropy(logits[:-1], wanted, reduction="sum", ignore_index=-100))
        count += int((wanted != -100).sum())
    return total / count


def test_the_loss_is_transformers_own_on_the_same_conversations(undisturbed: Tuning, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = exported(undisturbed.run, tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert held_out_loss(model, undisturbed) == pytest.approx(
        undisturbed.validations()[-1]["domains"]["again"]["loss"], abs=1e-5
    )
    tokenizer = AutoTokenizer.from_pretrained(out)
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say again: apple"}], tokenize=False, add_generation_prompt=True
    )
    assert said == "Q: Say again: apple\nA:\n"
    config = json.loads((out / "config.json").read_text())
    assert config["max_position_embeddings"] == 256 and config["rope_parameters"]["rope_theta"] == 1e4
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    card = (out / "README.md").read_text()
    assert "fine-tuned on conversations" in card and "| trained further from | base-aaaaaa@2 |" in card


def test_one_may_begin_from_a_run_of_adapters(adapted: Tuning, folder: Path, tmp_path: Path) -> None:
    """As from what they are merged into."""
    spec = sft_spec(folder)
    losses = []
    for name, init in (("ofrun", "adapted-aaaaaa"), ("ofhf", {"hf": str(exported(adapted.run, tmp_path / "hf"))})):
        tuning = Tuning(
            RunDir(folder / f"{name}-aaaaaa"), {**spec, "train": {**spec["train"], "steps": 1}, "init": init}
        )
        assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
        losses.append(float.fromhex(tuning.losses()[1]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
