"""A checkpoint of a real training as transformers loads it; what is refused; and what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.model.parity import titan, titan_logits
from tests.train.folders import damage
from xgen.runs import Refused, RunDir
from xgen.spec import Pretrain, load_resolved
from xgen.train import export as export_module
from xgen.train.export import RECORD, Exported, export

STORE = ROOT / ".cache/tiny-store"


@contextmanager
def quiet(_text: str) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def written(run: RunDir, out: Path, step: int | None = None, **kwargs: Any) -> Exported:
    return export(run, step, out, kwargs.pop("tokenizer", None), kwargs.pop("dtype", "float32"), quiet)


def change(run: RunDir, **keys: Any) -> None:
    run.spec_file.write_text(yaml.safe_dump(yaml.safe_load(run.spec_file.read_text()) | keys))


def saved_weights(run: RunDir, step: int) -> dict[str, torch.Tensor]:
    """As torch's own tool reads them."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(run.checkpoints_dir / f"step-{step}", run.path / "whole.pt")
    model: dict[str, torch.Tensor] = torch.load(run.path / "whole.pt", weights_only=False)["model"]
    return model


def test_transformers_loads_the_checkpoint_and_generates_what_it_predicts(run: RunDir, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = written(run, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(done.folder)
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    job = load_resolved(run.spec_file)
    assert isinstance(job, Pretrain)
    ours = titan(job.model, 64)
    ours.load_state_dict(saved_weights(run, 8), strict=True)
    tokens = torch.randint(4096, (2, 64))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, titan_logits(ours, tokens), rtol=0, atol=1e-4)
    prompt = tokenizer("def main(", return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    assert len(said) > len(prompt.input_ids[0])
    by_hand = prompt.input_ids
    while by_hand.shape[1] < len(said):
        by_hand = torch.cat([by_hand, titan_logits(ours, by_hand)[:, -1:].argmax(-1)], dim=1)
    assert said.tolist() == by_hand[0].tolist()
    assert (model.generation_config.eos_token_id, model.config.pad_token_id) == (0, 0)


def test_float32_is_the_checkpoint_bit_for_bit_and_bfloat16_is_it_rounded(run: RunDir, tmp_path: Path) -> None:
    from xgen.model.hf import import_hf

    saved = saved_weights(run, 6)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        done = written(run, tmp_path / name, 6, dtype=name)
        spec, state = import_hf(done.folder)
        assert state.keys() == saved.keys()
        assert all(torch.equal(state[key], saved[key].to(dtype)) for key in saved)
        assert spec.num_parameters == done.num_parameters == sum(t.numel() for t in state.values())
        assert json.loads((done.folder / "config.json").read_text())["dtype"] == name


TEXTS = [
    "def f(x):\n\treturn  x",
    "naïve 北京 🙂\r\n",
    "  leading and trailing  ",
    "don't, I'm 12345.678",
    "\x00\ufffd",
]


def test_the_tokenizer_encodes_as_the_training_did(run: RunDir, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from xgen.data.tokenizer import Tokenizer

    there = AutoTokenizer.from_pretrained(written(run, tmp_path / "out").folder)
    ours = Tokenizer.load(STORE / "tokenizer.json")
    for text, tokens in zip(TEXTS, ours.encode_batch(TEXTS), strict=True):
        assert there(text).input_ids == tokens.tolist()
        assert there.decode(tokens.tolist()) == text
    assert (there.eos_token, there.eos_token_id, there.pad_token) == ("<|endoftext|>", 0, "<|endoftext|>")
    assert (there.bos_token, there.model_max_length) == (None, 64)


def test_a_tokenizer_that_would_add_tokens_adds_none_in_the_export(run: RunDir, tmp_path: Path) -> None:
    import tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    adding = tokenizers.Tokenizer.from_file(str(STORE / "tokenizer.json"))
    adding.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", adding.token_to_id("<|endoftext|>"))]
    )
    (tmp_path / "given").mkdir()
    adding.save(str(tmp_path / "given" / "tokenizer.json"))
    there = AutoTokenizer.from_pretrained(written(run, tmp_path / "out", tokenizer=tmp_path / "given").folder)
    assert adding.encode("one").ids[0] == 0
    assert there("one").input_ids == adding.encode("one").ids[1:]


def test_positions_turn_as_in_the_stage_of_the_step(run: RunDir, tmp_path: Path) -> None:
    first = yaml.safe_load(run.spec_file.read_text())["stages"][0] | {"tokens": 4 * 256}
    yarn = {"rope_theta": 5e5, "rope_scaling": {"factor": 2, "original": 32}, "seq_len": 64}
    change(run, stages=[first, first | {"name": "longer"} | yarn])
    (run.path / "code.commit").write_text("0123abcd\n")
    short, long = (written(run, tmp_path / f"{step}", step).folder for step in (4, 6))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (short, long)]
    assert [config["rope_parameters"]["rope_type"] for config in configs] == ["default", "yarn"]
    assert [config["rope_theta"] for config in configs] == [1e4, 5e5]
    cards = [(folder / "README.md").read_text() for folder in (short, long)]
    assert "longer" not in cards[0]
    assert "| only | 1 to 4 | 1,024 | 64 | 10000 | none | all in proportion |" in cards[1]
    assert "| longer | 5 to 6 of 8 | 512 | 64 | 500000 | YaRN, 2 times 32 | all in proportion |" in cards[1]
    digest = json.loads((run.checkpoints_dir / "step-6/manifest.json").read_text())["data_digest"]
    for fact in ("| run | nano-cccccc |", "| step | 6 |", "| tokens | 1,536 |", f"`{digest}`", "| code | `0123abcd` |"):
        assert fact in cards[1]
    assert re.search(r"\| tiny-store `\w{16}` \| [\d,]+ \| [\d,]+ \| cpython \(PSF-2.0\)", cards[1])
    assert str(ROOT) not in cards[1]


def test_a_second_try_leaves_what_is_there(run: RunDir, tmp_path: Path) -> None:
    first = written(run, tmp_path / "out")
    before = {file.name: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    again = written(run, tmp_path / "out")
    assert (first.new, again.new) == (True, False)
    assert again.record == first.record
    assert {file.name: file.stat().st_mtime_ns for file in first.folder.iterdir()} == before
    assert {*before} == {*(file.name for file in first.record.files), RECORD}


def test_by_default_it_lies_in_the_run_directory(run: RunDir) -> None:
    assert export(run, 4, None, None, "bfloat16", quiet).folder == run.path / "export" / "step-4"


def _no_run(run: RunDir, _: Path) -> None:
    run.spec_file.unlink()


def _command(run: RunDir, _: Path) -> None:
    run.spec_file.write_text("kind: command\nname: other\ncommand: [ls]\nresources: {time: 5m}\n")


def _no_checkpoint(run: RunDir, _: Path) -> None:
    for folder in run.checkpoints_dir.iterdir():
        (folder / "manifest.json").unlink()


def _flipped(run: RunDir, _: Path) -> None:
    damage(run.checkpoints_dir / "step-8", "__0_0.distcp")


def _another_model(run: RunDir, _: Path) -> None:
    change(run, model=yaml.safe_load(run.spec_file.read_text())["model"] | {"ffn_dim": 65})


def _a_norm_less(run: RunDir, _: Path) -> None:
    change(run, model=yaml.safe_load(run.spec_file.read_text())["model"] | {"qk_norm": True})


def _no_tokenizer(run: RunDir, tmp_path: Path) -> None:
    change(run, data={"store": str(tmp_path / "gone")})


def _small_vocabulary(run: RunDir, _: Path) -> None:
    change(run, model=yaml.safe_load(run.spec_file.read_text())["model"] | {"vocab_size": 4095})


def _somebody_elses(_: RunDir, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")


def _a_file(_: RunDir, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("years of work")


def _of_another_step(run: RunDir, tmp_path: Path) -> None:
    written(run, tmp_path / "out", 6)


def _damaged_export(run: RunDir, tmp_path: Path) -> None:
    written(run, tmp_path / "out")
    damage(tmp_path / "out", "model.safetensors")


REFUSED: dict[str, tuple[Callable[[RunDir, Path], None], str]] = {
    "no run": (_no_run, "nano-cccccc is no run directory, it has no spec.yaml; write the name of a run"),
    "another kind": (_command, "run: nano-cccccc is of the kind command; write the name of a run that trains"),
    "no checkpoint": (_no_checkpoint, "run: nano-cccccc has no complete checkpoint; wait for its first one"),
    "flipped byte": (_flipped, "step-8 does not verify: __0_0.distcp: its checksum is not the manifest's; write the"),
    "another model": (_another_model, "has layers.0.feed_forward.w1.weight of (64, 32), and its spec wants (65, 32)"),
    "a norm less": (_a_norm_less, "has layers.0.attention.q_norm.weight of None, and its spec wants (16,)"),
    "no tokenizer": (_no_tokenizer, "gone/tokenizer.json: does not exist; name a tokenizer.json"),
    "vocabulary": (_small_vocabulary, "tokenizer.json has 4096 tokens, and the model 4095; write the one that"),
    "somebody else's": (_somebody_elses, "out is there, and no export of xgen's; write another place, or remove it"),
    "a file": (_a_file, "out is there, and no export of xgen's; write another place, or remove it"),
    "another step": (_of_another_step, "out is an export of nano-cccccc@6 in float32; write another place, or remove"),
    "damaged": (_damaged_export, "out is damaged: model.safetensors: its checksum is not the manifest's; remove it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_exported_is_refused_and_nothing_changes(run: RunDir, tmp_path: Path, what: str) -> None:
    prepare, message = REFUSED[what]
    prepare(run, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(Refused) as refused:
        written(run, tmp_path / "out")
    assert message in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_step_that_is_not_there_is_refused_with_those_that_are(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has no complete checkpoint of step 5; write one of 4, 6, 8"):
        written(run, tmp_path / "out", 5)


def in_child(work: Callable[[], None]) -> int:
    """Fork; returns the process."""
    if pid := os.fork():
        return pid
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("moment", [0, 1, 10, 21, "named"])
def test_a_kill_leaves_nothing_half_and_the_next_try_clears_up(run: RunDir, tmp_path: Path, moment: int | str) -> None:
    out, told = tmp_path / "place" / "out", []

    @contextmanager
    def deadly(text: str) -> Iterator[Callable[[int], None]]:
        def tick(_: int) -> None:
            told.append(text)
            if sum("parameters" in said for said in told) == number + 1:
                die()

        yield tick

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if moment == "named":  # all is written, and about to get its name
            export_module.sync_folder = die
        export(run, None, out, None, "float32", deadly)

    number = moment if isinstance(moment, int) else 1000
    pid = in_child(work)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == [".out.tmp"]
    (out.parent / ".out.tmp" / "model-00009-of-00009.safetensors").touch()  # of one that was cut otherwise
    done = written(run, out)
    assert done.new
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert {path.name for path in out.iterdir()} == {*(file.name for file in done.record.files), RECORD}
    assert not any("00009" in path.name for path in out.iterdir())


def test_of_two_at_once_one_writes_and_the_other_finds_it(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "said").mkdir()

    @contextmanager
    def slow(text: str) -> Iterator[Callable[[int], None]]:
        yield lambda _: time.sleep(0.02) if "parameters" in text else None

    def work() -> None:
        done = export(run, None, out, None, "float32", slow)
        (tmp_path / "said" / str(os.getpid())).write_text(str(done.new))

    pids = [in_child(work) for _ in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    said = sorted((tmp_path / "said" / str(pid)).read_text() for pid in pids)
    assert said == ["False", "False", "True"]
    assert not (tmp_path / ".out.tmp").exists()
