"""What changes costs what follows from it, and no more; what must not change under a plan is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.curate.steps.conftest import marks, run_all
from xgen.data import StoreError, TokenStore
from xgen.data.curate.classify.train import Recipe, train
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.models import opened
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.steps.run import Shard, run_step
from xgen.spec import Curate


def tagged_anew(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(before.get(name) != time for name, time in after.items() if name.startswith("tag/"))


def test_a_file_that_changes_costs_the_units_that_read_it(small: Curate, tmp_path: Path) -> None:
    run_all(small)
    before = marks(Path(small.work_folder))
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"text": "one more line of text"}\n')
    run_all(small)
    after = marks(Path(small.work_folder))
    assert tagged_anew(before, after) == 1
    assert len([name for name in after if name.startswith("tag/")]) == 3  # what was read before is gone


def test_an_input_more_costs_its_own_units_wherever_it_stands(small: Curate, tmp_path: Path) -> None:
    run_all(small)
    before = marks(Path(small.work_folder))
    (tmp_path / "d.jsonl").write_text('{"text": "one more input with one line of text"}\n')
    other = {"path": str(tmp_path / "d.jsonl"), "domain": "a"}
    told = small.model_dump(mode="json")
    more = Curate.model_validate(told | {"inputs": [other, *reversed(told["inputs"])]})
    run_all(more)
    assert tagged_anew(before, marks(Path(small.work_folder))) == 1
    fresh = more.model_copy(update={"work": str(tmp_path / "fresh"), "out": str(tmp_path / "fresh-out")})
    run_all(fresh)
    one, again = (TokenStore.open(Path(job.out) / "all").meta.fingerprint for job in (more, fresh))
    assert one == again


def test_where_documents_begin_is_looked_up_once_and_again_after_a_unit_was_tagged_anew(small: Curate) -> None:
    for step in ("prepare", "tag", "match"):
        run_step(small, step)
    work = Path(small.work_folder)
    context = Context(small, work, read_plan(small))
    folders = [one.folder for one in context.units_of("tag")]
    counts = folders[0] / "kept.npy"
    counts.rename(work / "aside")  # who asks now reads what the first one found
    assert context.begins.tolist() == [0, 30, 60, 90]
    (work / "aside").rename(counts)
    other = small.model_copy(update={"max_document": 1000})
    run_step(other, "prepare")
    run_step(other, "tag", Shard(0, 3))
    run_step(small, "prepare")
    with pytest.raises(StoreError, match="1 of 3 results of tag are missing, the first is 000000; run the step tag"):
        run_step(small, "match")


def test_a_file_that_changes_after_the_plan_is_refused(small: Curate, tmp_path: Path) -> None:
    run_step(small, "prepare")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"text": "one more line of text"}\n')
    with pytest.raises(StoreError, match=r"a\.jsonl: changed while it was read; run it again from the step prepare"):
        run_step(small, "tag")


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
    Path(earlier.earlier[0], "index.json").write_text("{}")
    with pytest.raises(StoreError, match=r"index\.json: has changed since the plan was made"):
        run_step(later, "tag")


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
