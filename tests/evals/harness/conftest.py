"""A tiny model after a few steps of a real training, its export, and tasks over local text."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.evals.harness.tasks import write_tasks
from tests.train.forked import STEPS, Training, warm_up
from xgen.evals.harness.process import CHILD
from xgen.evals.protocol import Subject
from xgen.evals.subject import open_subject
from xgen.runs import RunDir
from xgen.spec import Evaluate
from xgen.spec.evaluate import Harness

SEQ_LEN = 512  # room for examples before a question
SHOTS: dict[str, int | None] = {"endings": 2, "last_word": None, "spoken": None}
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Done."""
    warm_up()
    training = Training(RunDir(tmp_path_factory.mktemp("harness") / "runs" / "nano-abc234"), world_size=1)
    training.change("resources", "gpus_per_node", 1)
    for key, value in (("seq_len", SEQ_LEN), ("global_batch", 2 * SEQ_LEN), ("tokens", STEPS * 2 * SEQ_LEN)):
        training.change("stages", 0, key, value)
    assert [one.status for one in training.go()] == ["finished"]
    return training


@pytest.fixture(scope="session")
def subject(training: Training, tasks: Path) -> Subject:
    job = Evaluate.model_validate(
        {
            "kind": "evaluate",
            "name": "knowledge",
            "checkpoints": training.run.name,
            "harness": harness_of(tasks).model_dump(),
            "resources": {"nodes": 1, "gpus_per_node": 0, "time": "1h"},
        }
    )
    whole = RunDir(training.run.path.with_name("knowledge-abc234"))
    whole.create()
    return open_subject(job, training.run, STEPS, whole, "cpu")


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "own")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The child's code in this process: one start of lm-eval for many orders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
            patch.setenv(name, "1")
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        spec = importlib.util.spec_from_file_location("harness_child", CHILD)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="session")
def talking(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export with a chat template."""
    folder = tmp_path_factory.mktemp("talking")
    for file in subject.export("float32").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


def harness_of(folder: Path, **keys: Any) -> Harness:
    return Harness.model_validate({"tasks": SHOTS, "include": str(folder), "dtype": "float32", "batch": 4} | keys)
