"""Checkpoints as they are scored: weights, geometry, tokenizer, template; what is refused, and by which name."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import xgen.engine.opened
import xgen.train.export
from tests.conftest import ROOT
from tests.engine.conftest import _one_thread
from tests.evals.made import evaluation
from tests.evals.saved import SIZES, begin, make, model_of, random_model, save
from tests.model.parity import titan_logits
from tests.train.folders import damage
from xgen.evals.protocol import Prompt, Subject
from xgen.evals.subject import open_subject
from xgen.model.lora import adapter_shapes, adapters_of, merge
from xgen.runs import Refused, RunDir
from xgen.spec import Evaluate, Lora, RopeScaling

__all__ = ["_one_thread"]

STORE = ROOT / ".cache/tiny-store"
TEMPLATE = str(ROOT / "jobs/tiny/chat.jinja")
THETA, SCALING = 5e4, {"factor": 4, "original": 64}
STAGE = {"tokens": 640, "seq_len": 64, "global_batch": 64, "lr": {"peak": 1e-3, "warmup": 1}}
PRETRAIN: dict[str, Any] = {
    "kind": "pretrain", "model": SIZES, "data": {"store": str(STORE)},
    "stages": [
        {"name": "short", **STAGE},
        {"name": "long", **STAGE, "seq_len": 128, "global_batch": 128, "tokens": 1280, "rope_theta": THETA,
         "rope_scaling": SCALING},
    ],
}  # fmt: skip
SFT: dict[str, Any] = {
    "kind": "sft", "model": SIZES, "init": "base-aaaaaa",
    "data": {"tokenizer": str(STORE / "tokenizer.json"), "template": TEMPLATE, "sources": {"a": "a.jsonl"}},
    "train": {"steps": 4, "sequences": 1, "seq_len": 128, "rope_theta": THETA, "lr": {"peak": 1e-3}},
}  # fmt: skip
LORA = {"rank": 4, "alpha": 8}
TEXTS: list[list[int]] = [
    torch.randint(4096, (length,), generator=torch.Generator().manual_seed(length)).tolist() for length in (9, 90, 250)
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base-aaaaaa` of two stages of 10 steps each, and `full-aaaaaa` and `lora-aaaaaa` that began from it."""
    root = tmp_path_factory.mktemp("runs")
    base = make(root, "base-aaaaaa", PRETRAIN)
    for step in (10, 20):
        save(base, step, random_model(64, seed=step).state_dict())
    begin_all = {"full-aaaaaa": SFT, "lora-aaaaaa": SFT | {"lora": LORA}}
    for name, spec in begin_all.items():
        begin(make(root, name, spec), base, 20)
    save(RunDir(root / "full-aaaaaa"), 4, random_model(64, seed=4).state_dict())
    generator = torch.Generator().manual_seed(1)
    shapes = adapter_shapes(model_of(), Lora.model_validate(LORA))
    adapters = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    save(RunDir(root / "lora-aaaaaa"), 4, adapters)
    torch.save(adapters, root / "adapters.pt")
    return root


@pytest.fixture
def whole(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "eval-aaaaaa")
    run.create()
    return run


def job(**keys: Any) -> Evaluate:
    needles = {"lengths": [256], "depths": 2, "samples": 1}
    return evaluation(**{"needles": needles, "ruler": None, **keys})


def opened(runs: Path, whole: RunDir, name: str, step: int, **keys: Any) -> Subject:
    return open_subject(job(**keys), RunDir(runs / name), step, whole, "cpu")


def losses_of(model: torch.nn.Module) -> list[torch.Tensor]:
    found = []
    for text in TEXTS:
        logprobs = torch.log_softmax(titan_logits(model, torch.tensor([text]))[0, :-1], -1)
        found.append(-logprobs.gather(1, torch.tensor(text)[1:, None])[:, 0])
    return found


def assert_computes(subject: Subject, model: torch.nn.Module) -> None:
    for losses, expected in zip(subject.model().losses(TEXTS), losses_of(model), strict=True):
        torch.testing.assert_close(torch.from_numpy(losses), expected, rtol=0, atol=1e-4)


def test_a_checkpoint_has_the_geometry_of_the_stage_that_it_was_saved_in(runs: Path, whole: RunDir) -> None:
    """Texts are longer than either stage's."""
    short, long = opened(runs, whole, "base-aaaaaa", 10), opened(runs, whole, "base-aaaaaa", 20)
    assert (short.name, short.step, short.template) == ("base-aaaaaa@10", 10, None)
    assert_computes(short, random_model(256, seed=10))
    assert_computes(long, random_model(256, THETA, RopeScaling.model_validate(SCALING), seed=20))
    assert short.tokenizer.token_to_id("<|endoftext|>") == short.stop[0]
    assert len(short.stop) == 1


def test_greedy_answers_and_losses_are_those_of_transformers_on_the_export(runs: Path, whole: RunDir) -> None:
    subject = opened(runs, whole, "base-aaaaaa", 20)
    theirs = AutoModelForCausalLM.from_pretrained(subject.export("float32"))
    for losses, text in zip(subject.model().losses(TEXTS), TEXTS, strict=True):
        tokens = torch.tensor([text])
        with torch.no_grad():
            logprobs = torch.log_softmax(theirs(tokens).logits[0, :-1], -1)
        expected = -logprobs.gather(1, tokens[0, 1:, None])[:, 0]
        torch.testing.assert_close(torch.from_numpy(losses), expected, rtol=0, atol=1e-4)
    answers = dict(subject.model().generate(Prompt(text, 6, subject.stop) for text in TEXTS))
    for number, text in enumerate(TEXTS):
        tokens = torch.tensor([text])
        with torch.no_grad():
            row = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6, do_sample=False)
        expected_ids = [token for token in row[0, len(text) :].tolist() if token not in subject.stop]
        assert list(answers[number].ids) == expected_ids


def test_adapters_are_merged_into_what_they_were_trained_upon(runs: Path, whole: RunDir) -> None:
    subject = opened(runs, whole, "lora-aaaaaa", 4)
    model = random_model(256, THETA, seed=20)
    adapters = torch.load(runs / "adapters.pt")
    lora, state = Lora.model_validate(LORA), dict(model.state_dict())
    merged = 0
    for name, weight in state.items():
        a, b = adapters_of(name)
        if a in adapters:
            state[name] = merge(weight, adapters[a], adapters[b], lora)
            merged += 1
    assert merged == 2 * 7
    model.load_state_dict(state)
    assert_computes(subject, model)
    marks = whole.evaluation_dir / "verified"
    assert {mark.name for mark in marks.iterdir()} == {".lock", "base-aaaaaa@20", "lora-aaaaaa@4"}


def test_a_post_training_brings_its_template_unless_told_otherwise(runs: Path, whole: RunDir) -> None:
    own = opened(runs, whole, "full-aaaaaa", 4)
    assert own.template is not None
    assert own.template.source == Path(TEMPLATE).read_text()
    assert own.tokenizer.token_to_id(own.template.end_of_turn) in own.stop
    plain = opened(runs, whole, "full-aaaaaa", 4, template="none")
    assert plain.template is None
    assert set(own.stop) == set(plain.stop)
    given = opened(runs, whole, "base-aaaaaa", 20, template=TEMPLATE)
    assert given.template is not None
    assert set(given.stop) == set(own.stop)


def test_a_run_s_own_tokenizer_may_be_replaced(runs: Path, whole: RunDir, tmp_path: Path) -> None:
    document = json.loads((STORE / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"normalizer": {"type": "Lowercase"}}))
    own = opened(runs, whole, "base-aaaaaa", 20).tokenizer
    other = opened(runs, whole, "base-aaaaaa", 20, tokenizer=str(tmp_path)).tokenizer
    assert other.encode("ABC").ids == own.encode("abc").ids != own.encode("ABC").ids


@pytest.fixture(scope="module")
def exported(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of `full-aaaaaa`, with its template."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    whole = RunDir(tmp_path_factory.mktemp("hf-eval"))
    return shutil.copytree(opened(runs, whole, "full-aaaaaa", 4).export("float32"), folder)


def of_folder(folder: Path, whole: RunDir, **keys: Any) -> Subject:
    return open_subject(job(checkpoints={"hf": str(folder)}, **keys), whole, None, whole, "cpu")


def test_a_hugging_face_folder_is_what_it_was_exported_from(exported: Path, whole: RunDir) -> None:
    subject = of_folder(exported, whole)
    assert (subject.name, subject.step) == (str(exported), 0)
    assert_computes(subject, random_model(256, THETA, seed=4))
    assert subject.template is not None
    assert subject.template.source == Path(TEMPLATE).read_text()
    assert subject.stop == (subject.tokenizer.token_to_id("<|endoftext|>"),)
    assert subject.export("float32") == exported
    assert of_folder(exported, whole, template="none").template is None


def test_a_folder_of_yarn_turns_as_it_was_trained(runs: Path, whole: RunDir) -> None:
    folder = opened(runs, whole, "base-aaaaaa", 20).export("float32")
    subject = of_folder(folder, whole)
    assert_computes(subject, random_model(256, THETA, RopeScaling.model_validate(SCALING), seed=20))
    assert subject.template is None  # a model that was pre-trained only is given no template
    assert subject.tokenizer.token_to_id("<|endoftext|>") in subject.stop


def test_what_ends_a_generation_is_taken_from_wherever_the_folder_says_it(
    exported: Path, whole: RunDir, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert {7, 9} <= set(of_folder(folder, whole).stop)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "rope_type is 'llama3'"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "attention_factor of YaRN is 1.139, and our models have 1",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "attention_factor": 1.0}},
            "mscale of YaRN is 2.0, and ours has none",
        ),
        ({"vocab_size": 4000}, "config.json makes it"),
        ({"architectures": ["GptOss"]}, "GptOss is none that can be imported"),
    ],
    ids=str,
)
def test_a_folder_that_our_models_do_not_do_is_named(
    exported: Path, whole: RunDir, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": None} | keys))
    with pytest.raises(Refused, match=r"checkpoints.hf: .*(config.json|safetensors)") as error:
        of_folder(folder, whole)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "step", "keys", "said"),
    [
        ("gone-aaaaaa", 4, {}, "checkpoints.run: .* is no run directory"),
        ("base-aaaaaa", 11, {}, "checkpoints.step: .* has no complete checkpoint of step 11; write one of 10, 20"),
        ("base-aaaaaa", 20, {"tokenizer": "/nowhere"}, "/nowhere"),
        ("base-aaaaaa", 20, {"template": "/nowhere.jinja"}, "/nowhere.jinja: does not exist; name a Jinja file"),
    ],
)
def test_what_is_not_there_is_named(
    runs: Path, whole: RunDir, name: str, step: int, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        opened(runs, whole, name, step, **keys)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(exported: Path, whole: RunDir, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"].append({**document["added_tokens"][0], "id": 4096, "content": "<|one more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(Refused, match="has 4,097 tokens, and the model's vocabulary 4,096"):
        of_folder(folder, whole)


@pytest.mark.parametrize("name", ["base-aaaaaa@20", "lora-aaaaaa@4"])
def test_a_damaged_checkpoint_is_read_by_nobody(runs: Path, whole: RunDir, tmp_path: Path, name: str) -> None:
    """Also where it is what adapters were trained upon."""
    root = shutil.copytree(runs, tmp_path / "runs")
    init = root / "lora-aaaaaa" / "init.json"
    init.write_text(init.read_text().replace(str(runs), str(root)))
    run, _, step = name.partition("@")
    damage(root / "base-aaaaaa/checkpoints/step-20", "__0_0.distcp")
    with pytest.raises(Refused, match=r"step-20 does not verify: __0_0.distcp: its checksum is not the manifest's"):
        opened(root, whole, run, int(step))


def test_weights_that_find_no_memory_are_refused(runs: Path, whole: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(xgen.engine.opened, "InProcessEngine", full)
    subject = opened(runs, whole, "base-aaaaaa", 20)
    with pytest.raises(Refused, match=r"base-aaaaaa@20: the [\d,]+ parameters of .* are too many for cpu: CUDA out of"):
        subject.model()


def test_a_checkpoint_is_verified_once_for_all_shards(
    runs: Path, whole: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    verify = xgen.train.export.verify_checkpoint

    def counting(folder: Path, show: Any) -> None:
        verified.append(folder.name)
        verify(folder, show)

    monkeypatch.setattr(xgen.train.export, "verify_checkpoint", counting)
    threads = [threading.Thread(target=opened, args=(runs, whole, "base-aaaaaa", 20)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert verified == ["step-20"]
    opened(runs, whole, "base-aaaaaa", 10)
    assert verified == ["step-20", "step-10"]


def test_one_of_several_shards_writes_the_export(runs: Path, whole: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    export = xgen.train.export.export

    def counting(*arguments: Any) -> Any:
        done = export(*arguments)
        made.append(done.new)
        return done

    monkeypatch.setattr(xgen.train.export, "export", counting)
    subjects = [opened(runs, whole, "base-aaaaaa", 20) for _ in range(3)]
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda one=one: folders.append(one.export("bfloat16"))) for one in subjects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made == [True]
    assert set(folders) == {whole.evaluation_dir / "export" / "step-20"}
    shutil.rmtree(folders[0])
    assert (subjects[0].export("bfloat16") / "config.json").is_file()
    assert made == [True, True]


def test_the_model_is_loaded_once(runs: Path, whole: RunDir) -> None:
    subject = opened(runs, whole, "base-aaaaaa", 10)
    assert subject.model() is subject.model()
