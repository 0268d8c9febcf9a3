"""What goes wrong with the process of lm-eval, and what a person is told."""

from __future__ import annotations

import os
import sys
import time
import venv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.evals.harness.conftest import harness_of
from tests.evals.harness.tasks import write_faulty, write_tasks
from xgen.evals.harness import HarnessSuite, process
from xgen.evals.harness.entries import entries_of, report
from xgen.evals.harness.process import CHILD, answers, offline
from xgen.evals.harness.tasks import order_of
from xgen.runs import Refused
from xgen.spec.evaluate import Harness


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faulty(write_tasks(tmp_path_factory.mktemp("tasks") / "own"))


def asked(faulty: Path, folder: Path, tasks: dict[str, int | None], **keys: Any) -> None:
    HarnessSuite(harness_of(faulty, tasks=tasks, **keys), folder).items()


def test_an_interpreter_that_is_none_is_refused(tasks: Path, tmp_path: Path) -> None:
    for python, said in ((tmp_path / "none", "No such file"), (tmp_path, "Permission denied")):
        with pytest.raises(Refused, match=rf"harness.python: cannot start {python}: {said}.*; name the interpreter"):
            HarnessSuite(harness_of(tasks, python=str(python)), tmp_path).items()


def test_an_environment_without_lm_eval_is_refused_with_what_to_install(tasks: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(Refused, match=rf"lm_eval is not in the environment of {python}; write pip install 'lm_eval"):
        HarnessSuite(harness_of(tasks, python=str(python)), tmp_path).items()


def test_a_data_set_that_is_not_there_is_refused_with_the_folder_and_the_command(faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"task absent is not in {tmp_path}/datasets .*; write `xgen evals fetch SPEC`"):
        asked(faulty, tmp_path, {"absent": None}, datasets=str(tmp_path / "datasets"))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"code": None}, "task code runs the code that the model writes"),
        ({"alike": 0}, "group alike counts its tasks alike"),
        ({"rolling": None}, "task rolling gives a document no score of its own .word_perplexity.; leave it out"),
        ({"last_word": 3}, "last_word has no shots by its own file, and 3 are asked of last_word"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(
    child: ModuleType, faulty: Path, tasks: dict[str, int | None], said: str
) -> None:
    harness = harness_of(faulty, tasks=tasks)
    with pytest.raises(child.Refused, match=said):
        list(child.describe(order_of(harness, entries_of(harness))))


def test_a_task_that_a_group_has_as_well_is_refused(faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="endings_a is named twice, by itself or by a group; leave one out"):
        asked(faulty, tmp_path, {"family": 1, "endings_a": 1})


def test_one_that_says_nothing_for_long_is_ended(faulty: Path, tmp_path: Path) -> None:
    harness = harness_of(faulty, tasks={"stuck": 0})
    order, began = order_of(harness, entries_of(harness)), time.monotonic()
    with pytest.raises(RuntimeError, match="has said nothing for 1 s; it was ended"):
        list(answers(None, order, offline(None, tmp_path), silence=1.0))
    assert time.monotonic() - began < 30
    assert children() == []


def test_a_stop_ends_it_at_once(faulty: Path, tmp_path: Path) -> None:
    harness = harness_of(faulty, tasks={"stuck": 0})
    looks = iter([False, False, True])
    assert (
        list(answers(None, order_of(harness, entries_of(harness)), offline(None, tmp_path), lambda: next(looks))) == []
    )
    assert children() == []


def test_one_that_ends_by_itself_is_no_end_of_the_work(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "child.py"
    monkeypatch.setattr(process, "CHILD", broken)
    for text, said in (
        ("import sys; sys.exit(3)", "the process of lm-eval exited with 3"),
        ("import os; os.abort()", "the process of lm-eval was killed by signal 6"),
        (
            CHILD.read_text().replace("def describe(", "def describe(order):\n    1 / 0\n\n\ndef other("),
            "crashed: ZeroDiv",
        ),
    ):
        broken.write_text(text)
        with pytest.raises(RuntimeError, match=said):
            HarnessSuite(harness_of(tasks), tmp_path).items()


def test_one_that_has_said_all_and_does_not_leave_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(
        "import os, sys, time\n"
        "os.write(int(sys.argv[1]), b'{\"task\": {}}\\n')\n"
        "os.close(int(sys.argv[1]))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(process, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr(process, "_LEAVING", 0.5)
    began = time.monotonic()
    assert list(answers(None, {}, {})) == [{"task": {}}]
    assert time.monotonic() - began < 30
    assert children() == []


def test_one_that_the_signal_of_a_stop_kills_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGUSR2)\n")
    monkeypatch.setattr(process, "CHILD", tmp_path / "child.py")
    told = iter([False, True])  # a moment after the process was
    monkeypatch.setattr(process, "_LOOK", 20.0)
    assert list(answers(None, {}, {}, lambda: next(told))) == []
    with pytest.raises(RuntimeError, match="was killed by signal 12"):
        list(answers(None, {}, {}))


def children() -> list[str]:
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{one}/cmdline").read_text() for one in found]
    return [line for line in lines if CHILD.name in line]


@pytest.mark.parametrize("key", ["pretrained", "dtype", "batch_size", "trust_remote_code"])
def test_arguments_that_have_a_key_of_their_own_or_run_foreign_code_are_refused(
    tasks: Path, tmp_path: Path, key: str
) -> None:
    with pytest.raises(Refused, match=f"harness.arguments: {key} is not for the model's arguments"):
        HarnessSuite(harness_of(tasks, arguments={key: True}), tmp_path)


def test_a_task_of_the_report_is_not_named_again(tmp_path: Path) -> None:
    for name in ("gsm8k", "GSM8K"):
        harness = Harness.model_validate({"suite": "report", "tasks": {name: 8}})
        with pytest.raises(Refused, match=f"{name} is in suite: report, as GSM8K with 5 shots; leave it out"):
            HarnessSuite(harness, tmp_path)


@pytest.mark.slow
def test_every_task_of_the_report_is_one_of_lm_eval_and_a_task_that_is_none_is_refused(tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    index = TaskManager().task_index
    assert [entry.name for entry in report()] == [
        "ARC-Challenge", "BBH", "HellaSwag", "MMLU", "MMLU-Pro", "TruthfulQA", "WinoGrande", "GPQA", "GSM8K",
    ]  # fmt: skip
    for entry in report():
        config = index[entry.task].cfg
        assert config, entry
        group = config.get("aggregate_metric_list")
        metrics = group or config["metric_list"]
        filters = [f",{one['name']}" for one in config.get("filter_list") or ()] or [""]
        assert entry.metric in {f"{one['metric']}{named}" for one in metrics for named in filters}
        assert not group or group[0]["weight_by_size"]
        assert config.get("num_fewshot") in (None, entry.shots)
    with pytest.raises(Refused, match="there is no task 'mmlu_anatomie' in lm-eval; `lm-eval ls tasks` lists them"):
        HarnessSuite(
            Harness.model_validate({"tasks": {"mmlu_anatomie": 5}, "python": sys.executable}), tmp_path
        ).items()
