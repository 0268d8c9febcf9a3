"""The result does not depend on shards, their order, kills and repetitions; what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.curate.steps.conftest import Curated, files, marks, run_all
from tests.data.test_encode import with_unlisted_pair
from xgen.data import StoreError, TokenStore
from xgen.data.curate.steps import keys, select, tag
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


def kill_shard(job: Curate, step: str, shard: int, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(job.model_dump_json())
    command = [sys.executable, "-c", DIE, str(spec), step, str(shard)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
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
    assert {name.split("/")[0] for name in again} == {"balance", "deal", "shuffle"}
    assert "balance/all/done.json" not in again
    assert TokenStore.open(Path(small.out) / "more").meta.num_tokens == 1_000
    assert TokenStore.open(Path(small.out) / "all").meta.num_tokens == 2_000


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


def test_keys_in_many_runs_give_the_same_edges(small: Curate, tmp_path: Path) -> None:
    found = []
    for run_bytes, batch in ((1 << 20, 4096), (1, 7)):
        job = small.model_copy(update={"work": str(tmp_path / f"work-{run_bytes}")})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keys, "_RUN_BYTES", run_bytes)
            patch.setattr(tag, "_BATCH_DOCUMENTS", batch)
            for step in ("prepare", "tag", "match", "cluster"):
                run_step(job, step)
        work = Path(job.work_folder)
        [index, *_] = work.glob("tag/*/keys.npy")
        assert len(np.load(index)) == (1 if batch == 4096 else 6)  # 5 batches, and what is left: nothing
        found.append(files(work / "match") | files(work / "cluster"))
    assert found[0] == found[1]


def test_a_record_with_too_long_a_name_is_quarantined_and_too_many_domains_are_refused(
    small: Curate, tmp_path: Path
) -> None:
    rows = [{"text": f"text number {n}", "kind": f"kind {n}"} for n in range(9)]
    file = tmp_path / "kinds.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "a", "kind": "k" * 2_000_000}]))
    told = small.model_dump(mode="json") | {"inputs": [{"path": str(file), "keys": {"domain": "kind"}}]}
    job = Curate.model_validate(told)
    run_step(job, "prepare")
    run_step(job, "tag")
    [facts] = Path(job.work_folder).glob("tag/*/facts.json")
    [(number, places)] = json.loads(facts.read_text())["quarantined"].values()
    assert number == 1
    assert places[0].startswith(f"{file}: line 10: has 'kind' of more than 1,000 characters: 'kkk")
    run_step(job, "match")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tag, "MAX_NAMES", 8)
        with pytest.raises(
            StoreError, match=r"domains: there are more than 8; name kinds of text, .* inputs\[\]\.domain"
        ):
            run_step(job, "cluster")
        shutil.rmtree(Path(job.work_folder) / "tag")
        with pytest.raises(StoreError, match="domains: there are more than 8"):
            run_step(job, "tag")


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
