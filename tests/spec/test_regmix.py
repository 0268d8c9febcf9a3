"""The regmix spec: a pretrain spec within it, whose envelope is the job's; and what its mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from xgen.spec import Regmix, SpecError, dump, load_job
from xgen.spec.changes import changes, may_resume

BASE: dict[str, Any] = {
    "kind": "regmix",
    "name": "mix",
    "out": "weights",
    "resources": {"partition": "main", "nodes": 2, "gpus_per_node": 8, "time": "4h"},
    "lead": "2m",
    "proxy": {
        "extends": "train.yaml",
        "validation": {"store": "held-out"},
        "stages": [{"name": "proxy", "tokens": "1B", "seq_len": "2k", "global_batch": "1M", "lr": {"peak": 1e-3}}],
    },
    "num_proxies": 64,
}
TRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "name": "train",
    "model": "tiny",
    "resources": {"time": "1h"},
    "data": {"store": "store", "mixtures": {"one": {"a": 1}, "two": {"b": 1}}},
    "seed": 7,
}


def load(folder: Path, *overrides: str, **keys: Any) -> Regmix:
    (folder / "pyproject.toml").touch()
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(BASE | keys))
    job = load_job(file, overrides).job
    assert isinstance(job, Regmix)
    return job


def mistake(folder: Path, **keys: Any) -> str:
    with pytest.raises(SpecError) as error:
        load(folder, **keys)
    return str(error.value).replace(f"{folder}/", "")


def test_the_proxy_extends_a_spec_and_runs_as_the_job_does(tmp_path: Path) -> None:
    job = load(tmp_path)
    proxy = job.proxy_on({"a": 0.25, "b": 0.75, "c": 0.0})
    assert (proxy.seed, proxy.name, proxy.lead) == (7, "mix", 120)
    assert proxy.resources == job.resources
    assert proxy.data.store == f"{tmp_path}/store" and proxy.validation
    assert proxy.validation.store == f"{tmp_path}/held-out"
    assert {name: share.weight for name, share in proxy.shares(proxy.stages[0]).items()} == {"a": 0.25, "b": 0.75}


def test_the_resolved_spec_says_nothing_twice_and_is_read_back_to_the_same(tmp_path: Path) -> None:
    job = load(tmp_path, proxy=BASE["proxy"] | {"checkpoint": {"every": 7}})
    text = dump(job)
    assert not {"name", "kind", "resources", "container", "mixture"} & set(yaml.safe_load(text)["proxy"])
    (tmp_path / "resolved.yaml").write_text(text)
    assert load_job(tmp_path / "resolved.yaml").job == job


def test_a_resume_may_change_how_it_runs_and_not_what(tmp_path: Path) -> None:
    array = {"shards": 8}
    job = load(tmp_path, array=array)
    for override, may in (
        ("resources.time=2h", True),
        ("proxy.checkpoint.every=50", True),
        ("array.at_once=1", True),
        ("proxy.seed=8", False),
        ("num_proxies=65", False),
    ):
        changed = changes(job, load(tmp_path, override, array=array))
        assert list(changed) == [override.partition("=")[0]]
        assert [may_resume(key) for key in changed] == [may]


def test_proxies_are_an_array_and_the_fit_one_task(tmp_path: Path) -> None:
    job = load(tmp_path, array={"shards": 32, "at_once": 4})
    (proxies, train), (fit, single) = job.jobs
    assert (proxies, train.world_size, fit, single.world_size, single.gpus_per_node) == ("proxies", 16, "fit", 1, 1)
    assert job.array_of(0) == job.array and job.array_of(1) is None
    single = load(tmp_path, single={"partition": "cpu", "memory": "8GB"}).jobs[1][1]
    assert (single.partition, single.gpus_per_node, single.time, single.memory) == ("cpu", 0, 4 * 3600, 8 << 30)


def proxy(**keys: Any) -> dict[str, Any]:
    return {"proxy": BASE["proxy"] | keys}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (proxy(validation=None), "spec.yaml: proxy: validation is missing: its losses are what is fitted; write valid"),
        (proxy(stages=BASE["proxy"]["stages"] * 2), "spec.yaml: proxy: stages: 'proxy' is the name of two"),
        (
            proxy(stages=[BASE["proxy"]["stages"][0], BASE["proxy"]["stages"][0] | {"name": "two"}]),
            "spec.yaml: proxy: stages: a proxy has one, and here are 2; write one",
        ),
        (proxy(data={"packing": "none"}), "spec.yaml: proxy: data.packing: none takes no mixture; write best_fit"),
        (proxy(modle="tiny"), "spec.yaml: proxy.modle: unknown key; write model"),
        (proxy(model="tinny"), "spec.yaml: proxy.model: 'tinny' is no known model; write tiny"),
        (proxy(extends="trian.yaml"), "spec.yaml: proxy.extends: trian.yaml is no file beside spec.yaml"),
        ({"num_proxies": 9}, "spec.yaml: num_proxies: 9 is out of range; write a value of at least 10"),
        ({"array": {"shards": 65}}, "spec.yaml: array.shards: 65 are more than the 64 proxies; write 64 or less"),
        ({"max_epochs_of": {"a": 1}}, "spec.yaml: max_epochs_of bounds nothing without `tokens`; write tokens: 2T, "),
        ({"single": {"nodes": 2}}, "spec.yaml: single: the fit is one task; write nodes: 1, gpus_per_node: 0"),
        ({"lead": 20}, "spec.yaml: lead: 20 is not a duration; write 20s, 20m or 20h"),
    ],
)
def test_a_mistake_is_one_line_with_its_key_and_what_to_write(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    said = mistake(tmp_path, **keys)
    assert said.startswith(message)
    assert "\n" not in said


def test_the_tiny_job_is_what_it_says() -> None:
    job = load_job(ROOT / "jobs/tiny/regmix.yaml").job
    assert isinstance(job, Regmix)
    assert job.proxy.stages[0].num_tokens * job.num_proxies < 1_000_000
    assert job.proxy.deterministic and job.proxy.data.max_epochs == 4
