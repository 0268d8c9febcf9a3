"""The result does not depend on shards, their order, kills and repetitions; what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.curate.steps.conftest import Curated, run_all, spec_of
from tests.data.test_encode import with_unlisted_pair
from xgen.data import StoreError, TokenStore
from xgen.data.curate.classify.train import Recipe, train
from xgen.data.curate.steps import select
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.folders import DONE_FILE
from xgen.data.curate.steps.models import opened
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.steps.run import Shard, Watch, run_step
from xgen.data.encode import Choice
from xgen.data.tokenizer import Tokenizer
from xgen.spec import Curate
from xgen.spec.curate import SINGLE_STEPS

DIE = """
import os, signal, sys
from pathlib import Path
from xgen.data.curate.steps.run import Shard, Watch, run_step
from xgen.spec import Curate
job = Curate.model_validate_json(Path(sys.argv[1]).read_text())
def die(num_bytes):
    if num_bytes:
        os.kill(os.getpid(), signal.SIGKILL)
run_step(job, sys.argv[2], Shard(int(sys.argv[3]), 5), Watch(tick=die))
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def marks(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob(DONE_FILE)}


def kill_shard(job: Curate, step: str, shard: int, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(job.model_dump_json())
    command = [sys.executable, "-c", DIE, str(spec), step, str(shard)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_five_shards_in_another_order_with_kills_give_the_same_bytes(curated: Curated, tmp_path: Path) -> None:
    work = tmp_path / "work"
    job = curated.job.model_copy(update={"work": str(work)})
    first = curated.out.with_name("first")
    curated.out.rename(first)
    try:
        for step in job.steps:
            if step in ("tag", "select", "shuffle"):
                kill_shard(job, step, 1, tmp_path)
                assert list((work / step).rglob(".*.tmp")), step  # it was in the middle of something
            count = 1 if step in SINGLE_STEPS else 5
            for shard in reversed(range(count)):
                assert run_step(job, step, Shard(shard, count)) == "finished"
        assert list(work.rglob("*.tmp")) == []
        one, other = files(first), files(curated.out)
        assert sorted(one) == sorted(other)
        assert [name for name, content in one.items() if other[name] != content] == []
    finally:
        shutil.rmtree(curated.out, ignore_errors=True)
        first.rename(curated.out)


def test_a_second_run_does_nothing(curated: Curated) -> None:
    before = marks(Path(curated.job.work_folder)), files(curated.out)
    run_all(curated.job)
    assert (marks(Path(curated.job.work_folder)), files(curated.out)) == before


@pytest.fixture
def small(store: TokenStore, tmp_path: Path) -> Curate:
    """Three inputs of some lines each."""
    inputs = []
    for name in ("a", "b", "c"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(f'{{"text": "{name} {n} {"word " * (20 + n)}"}}\n' for n in range(30)))
        inputs.append({"path": str(file), "domain": name})
    mixtures = {"all": {"tokens": 2_000}}
    return spec_of(
        tmp_path, store.path / "tokenizer.json", tmp_path / "out", inputs=inputs, filters=[], domains={},
        decontaminate=None, dedup={}, mixtures=mixtures,
    )  # fmt: skip


def test_another_mixture_costs_its_own_plan_and_store_only(small: Curate) -> None:
    run_all(small)
    work = Path(small.work_folder)
    before = marks(work)
    changed = Curate.model_validate(
        small.model_dump(mode="json") | {"mixtures": {"all": {"tokens": 2_000}, "more": {"tokens": 1_000}}}
    )
    run_all(changed)
    after = marks(work)
    again = {name for name, time in after.items() if before.get(name) != time}
    assert {name.split("/")[0] for name in again} == {"balance", "shuffle"}
    assert "balance/all/done.json" not in again
    assert TokenStore.open(Path(small.out) / "more").meta.num_tokens == 1_000
    assert TokenStore.open(Path(small.out) / "all").meta.num_tokens == 2_000


def test_a_file_that_changes_costs_the_units_that_read_it(small: Curate, tmp_path: Path) -> None:
    run_all(small)
    before = marks(Path(small.work_folder))
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"text": "one more line of text"}\n')
    run_all(small)
    after = marks(Path(small.work_folder))
    again = sorted(name for name, time in after.items() if before.get(name) != time and name.startswith("tag/"))
    assert again == ["tag/000001/done.json"]


def test_a_stop_is_heard_between_two_results(small: Curate) -> None:
    run_step(small, "prepare")
    done: list[int] = []
    watch = Watch(stopped=lambda: len(done) >= 2, items=lambda number, _: done.append(number))
    assert run_step(small, "tag", watch=watch) == "stopped"
    assert len(marks(Path(small.work_folder))) == 1
    assert run_step(small, "tag") == "finished"
    assert len(marks(Path(small.work_folder))) == 3


@pytest.mark.parametrize("step", ["tag", "match", "cluster", "select", "shuffle"])
def test_a_stop_is_heard_within_a_result_and_leaves_it_undone(small: Curate, step: str) -> None:
    for before in small.steps[: small.steps.index(step)]:
        run_step(small, before)
    ticks: list[int] = []
    assert run_step(small, step, watch=Watch(stopped=lambda: len(ticks) >= 2, tick=ticks.append)) == "stopped"
    assert len(ticks) == 2
    assert not any(name.startswith(step) for name in marks(Path(small.work_folder)))
    assert list(Path(small.work_folder).rglob(".*.tmp")) == []
    run_all(small)
    assert TokenStore.open(Path(small.out) / "all").meta.num_tokens == 2_000


def test_a_step_whose_input_is_missing_names_the_step_to_run(small: Curate) -> None:
    with pytest.raises(StoreError, match="run the step prepare first"):
        run_step(small, "tag")
    run_step(small, "prepare")
    run_step(small, "tag", Shard(0, 3))
    with pytest.raises(StoreError, match="2 of 3 results of tag are missing, the first is 000001; run the step tag"):
        run_step(small, "match")


def test_a_file_that_changes_after_the_plan_is_refused(small: Curate, tmp_path: Path) -> None:
    run_step(small, "prepare")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"text": "one more line of text"}\n')
    with pytest.raises(StoreError, match=r"a\.jsonl: changed while it was read; run it again from the step prepare"):
        run_step(small, "tag")


def test_what_is_no_curated_corpus_is_not_replaced(small: Curate) -> None:
    Path(small.out).mkdir()
    (Path(small.out) / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="is there and is no curated corpus"):
        run_step(small, "prepare")


def test_what_does_not_belong_is_in_no_store_and_not_in_the_output(small: Curate) -> None:
    for step in small.steps[:-1]:
        run_step(small, step)
    work = Path(small.work_folder)
    parts = work / "assemble" / "all" / "parts"
    parts.mkdir(parents=True)
    (work / "assemble.all").write_text(json.loads((work / "balance/all/done.json").read_text())["recipe"])
    for stray in (work / "assemble" / "gone", parts.parent / "old", parts / "00099-a"):
        stray.mkdir()
        (stray / "core").write_text("of another day")
    (work / ".plan.json.node.1.tmp").write_text("half of a pl")
    assert run_step(small, "assemble") == "finished"
    assert sorted(path.name for path in Path(small.out).iterdir()) == [
        "all", "manifest.json", "mixtures.yaml", "report.html", "report.json",
    ]  # fmt: skip
    assert [name for name in files(Path(small.out)) if name.endswith("core")] == []
    assert list(work.rglob("*.tmp")) == []
    TokenStore.open(Path(small.out) / "all").verify()


def test_where_the_engines_differ_the_key_that_helps_is_named(small: Curate, tmp_path: Path) -> None:
    odd, token = with_unlisted_pair(Tokenizer.load(Path(small.tokenizer)))
    odd.save(tmp_path / "odd.json")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": token * 3}) + "\n")
    job = small.model_copy(update={"tokenizer": str(tmp_path / "odd.json")})
    for step in job.steps[: job.steps.index("select")]:
        run_step(job, step)
    with pytest.MonkeyPatch.context() as patch:
        # As if its own tokens had not told them apart.
        patch.setattr(select, "choose_engine", lambda *_: Choice("tiktoken"))
        with pytest.raises(StoreError, match=r"tiktoken and tokenizers give other tokens .*; write engine: tokenizers"):
            run_step(job, "select")
    slow = job.model_copy(update={"engine": "tokenizers"})
    run_all(slow)


def test_a_later_corpus_leaves_out_what_an_earlier_one_has(small: Curate, tmp_path: Path) -> None:
    first = Curate.model_validate(small.model_dump(mode="json") | {"dedup": {"index": True}})
    run_all(first)
    fresh = tmp_path / "fresh.jsonl"
    old = (tmp_path / "b.jsonl").read_text()
    fresh.write_text(old + '{"text": "nothing like this was ever written down before, not once in all the years"}\n')
    later = Curate.model_validate(
        small.model_dump(mode="json")
        | {
            "out": str(tmp_path / "later"),
            "inputs": [{"path": str(fresh), "domain": "b", "keys": {}}],
            "dedup": {"earlier": [f"{first.out}/index"]},
            "mixtures": {"all": {"tokens": "1k"}},
        }
    )
    run_all(later)
    from xgen.data.curate.report_model import read_report

    report = read_report(tmp_path / "later")
    assert {step.name: step.kept.documents for step in report.steps}["near"] == 1
    assert report.dedup.earlier == 30
    other = Curate.model_validate(
        later.model_dump(mode="json") | {"dedup": {"rows": 4, "earlier": later.dedup.earlier}}
    )
    with pytest.raises(StoreError, match="was made with rows 6, and the spec has 4; write rows: 6"):
        run_step(other, "prepare")
    buckets = sorted((Path(first.out) / "index").glob("near-*.bin"))
    with buckets[0].open("ab") as file:
        file.write(b"more")
    with pytest.raises(StoreError, match=r"near-0000\.bin: is not the file that the index was written with"):
        run_step(later, "prepare")


def test_another_index_of_as_many_documents_is_another_recipe(small: Curate, tmp_path: Path) -> None:
    """Equal counts in index.json do not make an index equal."""
    recipes = []
    for name in ("a", "b"):
        first = small.model_copy(
            update={
                "inputs": [one for one in small.inputs if one.domain == name],
                "out": str(tmp_path / "first"),
                "mixtures": {"all": small.mixtures["all"].model_copy(update={"tokens": 500})},
                "dedup": small.dedup.model_copy(update={"index": True}),
            }
        )
        run_all(first)
        earlier = small.dedup.model_copy(update={"earlier": [f"{first.out}/index"]})
        later = small.model_copy(update={"dedup": earlier, "work": str(tmp_path / "later")})
        run_step(later, "prepare")
        recipes.append(Context(later, Path(later.work_folder), read_plan(later)).recipes)
    assert recipes[0]["tag"] == recipes[1]["tag"]
    assert recipes[0]["match"] != recipes[1]["match"]


def test_a_file_beside_the_inputs_that_changes_after_the_plan_is_refused_by_name(small: Curate, tmp_path: Path) -> None:
    words, questions, tokenizer = (tmp_path / name for name in ("words.txt", "questions.jsonl", "tokenizer.json"))
    shutil.copy(small.tokenizer, tokenizer)
    words.write_text("casino\n")
    questions.write_text('{"question": "which of these words was never written down before this very day"}\n')
    job = Curate.model_validate(
        small.model_dump(mode="json")
        | {
            "tokenizer": str(tokenizer),
            "filters": [{"url_lists": {"words": [str(words)]}}],
            "decontaminate": {"sets": [{"name": "asked", "path": str(questions), "keys": ["question"]}]},
        }
    )
    run_step(job, "prepare")
    for file in (words, questions, tokenizer):
        before = file.read_text()
        file.write_text(before)  # at another time
        assert run_step(job, "tag") == "finished"
        file.write_text(before + "\n")
        with pytest.raises(StoreError, match=f"{file.name}: has changed since the plan was made; run it again from"):
            run_step(job, "tag")
        file.write_text(before)


def test_a_model_that_changes_after_the_plan_is_refused_by_name(small: Curate, tmp_path: Path) -> None:
    folder = tmp_path / "sorter"
    seeds = {name: [f"{name} {n} {'word ' * n}" for n in range(200)] for name in ("one", "two")}
    train(folder, {name: iter(some) for name, some in seeds.items()}, Recipe(kind="domain"))
    job = Curate.model_validate(small.model_dump(mode="json") | {"domains": {"model": {"path": str(folder)}}})
    run_step(job, "prepare")
    opened.cache_clear()  # as in a process of its own
    assert run_step(job, "tag") == "finished"
    train(folder, {name: iter(some) for name, some in seeds.items()}, Recipe(kind="domain", seed=5))
    opened.cache_clear()
    shutil.rmtree(Path(job.work_folder) / "tag")
    with pytest.raises(StoreError, match=r"sorter: has changed since the plan was made; run it again from the step"):
        run_step(job, "tag")
