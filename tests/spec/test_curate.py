"""The curate spec: what it takes, what stands for what, and what its mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from xgen.spec import Curate, SpecError, dump, load_job

BASE: dict[str, Any] = {
    "kind": "curate",
    "name": "web",
    "out": "corpora/web",
    "inputs": [{"path": "raw/web", "domain": "web"}, {"path": "hf:org/code:train", "domain": "code"}],
    "tokenizer": "tokenizer.json",
    "mixtures": {"broad": {"tokens": "2T"}},
    "resources": {"time": "1h"},
}


def load(folder: Path, **keys: Any) -> Curate:
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(BASE | keys))
    job = load_job(file).job
    assert isinstance(job, Curate)
    return job


def mistake(folder: Path, **keys: Any) -> str:
    with pytest.raises(SpecError) as error:
        load(folder, **keys)
    return str(error.value).removeprefix(f"{folder}/spec.yaml: ")


def test_paths_are_absolute_and_names_stay(tmp_path: Path) -> None:
    job = load(
        tmp_path,
        inputs=[
            *BASE["inputs"],
            {"path": "/raw/books", "domain": "books", "source": "gutenberg"},
            {"path": "s3://bucket/crawl", "domain": "web"},
            {"path": "file:///raw/more", "domain": "web"},
        ],
        quality={"labels": {"good": ["seeds/good", "s3://bucket/good"], "bad": ["seeds/bad"]}},
        filters=[{"url_lists": {"domains": ["lists/adult.txt"]}, "language": {"model": "models/lid.176.bin"}}],
        dedup={"earlier": ["corpora/old/index"]},
    )
    paths = [f"{tmp_path}/raw/web", "hf:org/code:train", "/raw/books", "s3://bucket/crawl", "/raw/more"]
    assert [one.path for one in job.inputs] == paths
    assert job.inputs[2].source == "gutenberg"
    assert job.quality is not None and job.quality.labels["bad"] == [f"{tmp_path}/seeds/bad"]
    assert set(job.reads.values()) == {
        f"{tmp_path}/raw/web", "/raw/books", "/raw/more", f"{tmp_path}/tokenizer.json", f"{tmp_path}/seeds/good",
        f"{tmp_path}/seeds/bad", f"{tmp_path}/lists/adult.txt", f"{tmp_path}/models/lid.176.bin",
        f"{tmp_path}/corpora/old/index",
    }  # fmt: skip
    assert (job.out, job.work_folder) == (f"{tmp_path}/corpora/web", f"{tmp_path}/corpora/web.work")


def test_steps_are_jobs_of_which_some_are_arrays(tmp_path: Path) -> None:
    job = load(tmp_path, array={"shards": 1000, "at_once": 200}, single={"memory": "200GB"}, dedup={"lines": {}})
    arrays = [name for stage, (name, _) in enumerate(job.jobs) if job.array_of(stage)]
    assert [name for name, _ in job.jobs] == [
        "prepare", "tag", "match", "cluster", "lines", "common", "select", "balance", "deal", "shuffle", "assemble",
    ]  # fmt: skip
    assert arrays == ["tag", "match", "lines", "common", "select", "deal", "shuffle"]
    resources = dict(job.jobs)
    assert resources["cluster"].memory == 200 << 30 and resources["tag"].memory is None
    assert resources["cluster"].time == resources["tag"].time == 3600
    assert {one.gpus_per_node for one in resources.values()} == {0}


def test_without_common_lines_their_steps_are_no_jobs(tmp_path: Path) -> None:
    assert not {"lines", "common"} & {name for name, _ in load(tmp_path).jobs}


@pytest.mark.parametrize(
    ("said", "rule", "table"),
    [
        ("fineweb2", "fineweb2", {}),
        ({"table": {1: 1, 5: 2}}, "table", {1: 1, 5: 2}),
        ({"rule": "rehydrate"}, "rehydrate", {}),
    ],
)
def test_a_rule_may_stand_for_all_of_the_frequency(tmp_path: Path, said: Any, rule: str, table: dict[int, int]) -> None:
    found = load(tmp_path, frequency=said).frequency
    assert (found.rule, found.table) == (rule, table)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"frequency": {"table": {2: 1}}}, "frequency: table: single documents (size 1) are missing; write {1: 1, …}"),
        ({"frequency": "finweb2"}, "frequency.rule: 'finweb2' is not known; write fineweb2"),
        (
            {"quality": {}},
            "quality: write one of path: FOLDER and labels: {LABEL: [PATH]}",
        ),
        (
            {"quality": {"labels": {"good": ["a"], "spam": ["b"]}}},
            "quality: labels: good, spam: a quality model has the labels good and bad",
        ),
        (
            {"mixtures": {"broad": {"tokens": "2T", "balance": {"weights": {"cod": 1}}}}},
            "mixtures.broad.balance.weights: 'cod' is no domain of the inputs; write code",
        ),
        (
            {"filters": [{"domains": ["webb"], "c4": {}}]},
            "filters[0].domains: 'webb' is no domain of the inputs; write web",
        ),
        (
            {"mixtures": {"best": {"tokens": "2T", "min_band": 7}}},
            "mixtures.best.min_band: no document has a band without `quality`; name a model",
        ),
        ({"mixtures": {"index": {"tokens": "2T"}}}, "mixtures: 'index' is no name of a folder"),
        (
            {"resources": {"time": "1h", "gpus_per_node": 8}},
            "resources: a shard is one task; write nodes: 1, gpus_per_node: 0, and more array.shards",
        ),
        (
            {"filters": [{"gopher_quality": {"min_word": 3}}]},
            "filters[0].gopher_quality.min_word: unknown key; write min_words",
        ),
        ({"filters": [{"c4": {"min_sentences": -1}}]}, "filters[0].c4.min_sentences: -1 is out of range"),
        (
            {"mixtures": {"broad": {"tokens": "2T", "balance": {"weights": {"web": 1}, "temperature": 2}}}},
            "mixtures.broad.balance: write one of weights, regmix and temperature",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_to_write(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    assert message in mistake(tmp_path, **keys)


def test_what_is_switched_off_is_off_in_the_resolved_spec_too(tmp_path: Path) -> None:
    job = load(tmp_path, pii=None, filters=[{"gopher_quality": {"min_words": None}}], frequency={"table": {1: 1, 3: 2}})
    (tmp_path / "resolved.yaml").write_text(dump(job))
    assert load_job(tmp_path / "resolved.yaml").job == job
    assert "ensemble" not in dump(job)


def test_the_tiny_job_is_what_it_says() -> None:
    job = load_job(ROOT / "jobs/tiny/curate.yaml").job
    assert isinstance(job, Curate)
    assert {"code", "reference", "literature"} <= set(job.mixtures["broad"].balance.weights)
    assert job.array.shards > 1
