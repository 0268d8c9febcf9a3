"""A checkpoint loads into other numbers of ranks and other layouts of them; the training goes on as if nothing were."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.train.conftest import Training
from xgen.runs import RunDir

LAYOUTS = {
    "fsdp 2 x replicate 2": (4, {"fsdp": 2, "replicate": 2}),
    "fsdp 2": (2, {}),
    "one rank": (1, {}),
    "tp 2 x cp 2": (4, {"tp": 2, "cp": 2}),
    "replicate 2": (2, {"fsdp": 1, "replicate": 2}),
    "tp 2": (2, {"tp": 2}),
    "cp 2": (2, {"cp": 2}),
    "pp 2": (2, {"pp": 2}),
    "fsdp 2 x tp 2": (4, {"fsdp": 2, "tp": 2}),
    "fsdp 2 x cp 2": (4, {"fsdp": 2, "cp": 2}),
    "fsdp 2 x pp 2": (4, {"fsdp": 2, "pp": 2}),
    "replicate 2 x tp 2": (4, {"fsdp": 1, "replicate": 2, "tp": 2}),
    "replicate 2 x cp 2": (4, {"fsdp": 1, "replicate": 2, "cp": 2}),
    "replicate 2 x pp 2": (4, {"fsdp": 1, "replicate": 2, "pp": 2}),
    "tp 2 x pp 2": (4, {"tp": 2, "pp": 2}),
    "cp 2 x pp 2": (4, {"cp": 2, "pp": 2}),
}
# Each of the two is proven alone, and with another; with each other by `-m slow`.
_RARE = ("replicate 2 x tp 2", "replicate 2 x cp 2", "replicate 2 x pp 2", "tp 2 x pp 2")
# Saving again: one of each kind.
SAVERS = ("fsdp 2 x replicate 2", "fsdp 2", "one rank", "replicate 2 x tp 2", "tp 2 x cp 2", "cp 2 x pp 2")


@pytest.fixture(scope="module")
def paragraphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of short documents, several in a sample: without masks between them the comparison would be too easy."""
    from xgen.data import TokenStore
    from xgen.data.ingest import Recipe, build_store
    from xgen.data.readers import Defaults, Keys

    corpus = TokenStore.open(ROOT / ".cache/tiny-store")
    tokenizer, folder = corpus.tokenizer(), tmp_path_factory.mktemp("paragraphs")
    texts = [tokenizer.decode(part.document(n)[:-1]) for part in corpus.parts for n in range(8)]
    lines = [json.dumps({"text": p}) for text in texts for p in text.split("\n\n") if 40 < len(p) < 400]
    (folder / "paragraphs.jsonl").write_text("\n".join(lines))
    facts = Recipe(
        (str(folder / "paragraphs.jsonl"),), Defaults("web", "crawl"), Keys(), corpus.path / "tokenizer.json"
    )
    build_store(folder / "store", facts, 1)
    return folder / "store"


@pytest.fixture(scope="module")
def saved(_warm: None, paragraphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Six steps of four ranks with FSDP, checkpoints at 2, 4 and 6."""
    training = Training(RunDir(tmp_path_factory.mktemp("saved") / "nano-cccccc"), world_size=4)
    training.change("model", "num_heads", 4)
    training.change("model", "num_kv_heads", 2)
    training.change("data", "store", str(paragraphs))
    training.change("resources", "gpus_per_node", 4)
    # Context parallelism needs sequences of 256 and more.
    training.change("stages", 0, "seq_len", 256)
    training.change("stages", 0, "global_batch", 1024)
    training.change("stages", 0, "tokens", 6 * 1024)
    assert {o.status for o in training.go()} == {"finished"}
    return training


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name in _RARE else ()) for name in LAYOUTS])
def other(request: pytest.FixtureRequest, saved: Training, tmp_path: Path) -> Training:
    """The run as it was after step 4, for other ranks."""
    return for_layout(saved, request.param, tmp_path)


def for_layout(saved: Training, layout: str, tmp_path: Path) -> Training:
    world_size, parallelism = LAYOUTS[layout]
    training = Training(RunDir(tmp_path / "nano-dddddd"), world_size=world_size)
    training.run.spec_file.write_text(saved.run.spec_file.read_text())
    training.change("resources", "gpus_per_node", world_size)
    training.change("stages", 0, "parallelism", parallelism)
    shutil.copytree(saved.run.checkpoints_dir / "step-4", training.run.checkpoints_dir / "step-4")
    return training


def test_samples_hold_several_documents(saved: Training) -> None:
    from xgen.data import samples_of
    from xgen.spec.load import load_resolved

    batch = samples_of(load_resolved(saved.run.spec_file), 0).batch(0, 24)
    assert ((batch.positions == 0).sum(axis=1) > 2).mean() > 0.8


def test_training_goes_on_with_the_same_losses(saved: Training, other: Training) -> None:
    """Sums in another order differ in the last bits only. Four sequences a micro-batch in place of one, too; and the
    data is the same to the last token, whoever loads it with however many threads."""
    from xgen.train.manifest import Manifest

    if other.world_size == 1:
        other.change("stages", 0, "micro_batch", 4)
    other.change("data", "workers", 3)
    other.change("data", "prefetch", 7)
    assert {o.status for o in other.go(timeout=180)} == {"finished"}, other._log()
    restored = other.event("restore_end")
    assert restored
    assert restored.step == 4
    expected = {step: float.fromhex(loss) for step, loss in saved.losses().items() if step > 4}
    assert {step: float.fromhex(loss) for step, loss in other.losses().items()} == pytest.approx(expected, abs=5e-6)
    digests = [Manifest.read(run.run.checkpoints_dir / "step-6").data_digest for run in (saved, other)]
    assert digests[0] == digests[1] != ""


@pytest.mark.parametrize("layout", SAVERS)
def test_what_is_loaded_is_what_was_saved(saved: Training, layout: str, tmp_path: Path) -> None:
    """Stopped before its first step, having forgotten that step 4 is durable: it saves what it has just loaded."""

    def forget(_rank: int) -> None:
        from xgen.train.checkpoint import VerifiedCheckpoints

        load = VerifiedCheckpoints._load

        def load_and_forget(self: VerifiedCheckpoints, step: int = -1) -> bool:
            loaded = load(self, step)
            self.durable_step = 0
            return loaded

        VerifiedCheckpoints._load = load_and_forget  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGUSR2)

    from xgen.train.compare import compare_checkpoints
    from xgen.train.manifest import Manifest

    other = for_layout(saved, layout, tmp_path)
    assert {(o.status, o.step) for o in other.go(in_rank=forget, timeout=180)} == {("stopped", 4)}
    folders = [training.run.checkpoints_dir / "step-4" for training in (saved, other)]
    manifests = [Manifest.read(folder) for folder in folders]
    assert manifests[1].world_size == other.world_size
    assert manifests[1].mesh != manifests[0].mesh
    assert manifests[1].data_digest == manifests[0].data_digest
    count, differing = compare_checkpoints(*folders)
    assert count > 50
    # Every rank has its own; of other ranks there is none to load.
    assert {name for name in differing if not name.startswith("/rng.")} == set()
    assert differing


@pytest.mark.parametrize(
    ("key", "way"),
    [("activation_checkpointing", "selective"), ("activation_checkpointing", "full"), ("attention", "varlen")],
)
def test_another_way_to_the_same_losses(saved: Training, tmp_path: Path, key: str, way: str) -> None:
    training = Training(RunDir(tmp_path / "nano-eeeeee"), world_size=2)
    training.run.spec_file.write_text(saved.run.spec_file.read_text())
    training.change("resources", "gpus_per_node", 2)
    training.change("stages", 0, key, way)
    shutil.copytree(saved.run.checkpoints_dir / "step-4", training.run.checkpoints_dir / "step-4")
    assert {o.status for o in training.go(timeout=180)} == {"finished"}, training._log()
    for step, loss in training.losses().items():
        assert float.fromhex(loss) == pytest.approx(float.fromhex(saved.losses()[step]), abs=5e-6)


@pytest.mark.parametrize(
    ("key", "value", "instead"), [("attention", "flash", "varlen"), ("precision", "float8", "bf16")]
)
def test_what_only_a_gpu_has_is_refused(saved: Training, tmp_path: Path, key: str, value: str, instead: str) -> None:
    training = Training(RunDir(tmp_path / "nano-eeeeee"), world_size=1)
    training.run.spec_file.write_text(saved.run.spec_file.read_text())
    training.change("resources", "gpus_per_node", 1)
    training.change("stages", 0, key, value)
    (outcome,) = training.go()
    assert outcome.status == "refused"
    assert outcome.reason == f"stages.only.{key}: {value} needs a GPU, and here is none; write {instead}"
