"""What a spec says of data: stores, mixtures, and the mistakes one makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.test_loading import TINY, problems, write
from xgen.spec import Pretrain, load_job


def data(text: str) -> str:
    return "--set data=" + text


def test_stores_by_name_start_at_the_project_and_a_number_is_a_weight(tmp_path: Path) -> None:
    text = TINY.read_text().replace("extends: base.yaml\n", "resources: {time: 5m}\n")
    before, _, rest = text.partition("data:\n")
    _, _, after = rest.partition("stages:\n")
    given = "data: {stores: {web: raw/web, code: /abs/code}, mixtures: {broad: {web/*: 0.8, code: {weight: 0.2}}}}\n"
    write(tmp_path, job=before + given + "stages:\n" + after)
    job = load_job(tmp_path / "job.yaml").job
    assert isinstance(job, Pretrain)
    assert job.data.folders == {"web": f"{tmp_path}/raw/web", "code": "/abs/code"}
    assert {name: share.weight for name, share in job.shares(job.stages[0]).items()} == {"web/*": 0.8, "code": 0.2}


def test_the_only_mixture_needs_no_name(tmp_path: Path) -> None:
    job = load_job(TINY, ["stages.0.mixture=null"]).job
    assert isinstance(job, Pretrain)
    assert set(job.shares(job.stages[0])) == {"code", "reference", "literature"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.store=null", "data: no store given; write store: FOLDER, or stores: {NAME: FOLDER}"),
        ("data.stores={a: b}", "data: both `store` and `stores` given; write store: FOLDER"),
        ("data.mixtures={empty: {}}", "data: mixtures.empty is empty; write {DOMAIN: WEIGHT}, or leave it out"),
        ("data.packing=none", "data: packing: none takes one store, no mixture and no cap; write packing: best_fit"),
        ("data.packing=bestfit", "data.packing: 'bestfit' is not known; write best_fit"),
        ("data.mixtures.broad.code=0", "data.mixtures.broad.code.weight: 0 is out of range; write a value above 0"),
        ("stages.0.mixture=board", "stages[0].mixture: 'board' is not in data.mixtures; write broad"),
        ("data.mixtures.other={code: 1}", None),
    ],
)
def test_a_mistake_names_the_key_and_what_to_write(override: str, said: str | None) -> None:
    if said is None:
        (found,) = problems(TINY, override, "stages.0.mixture=null")
        assert "stages[0].mixture is missing; write one of broad, other" in found
        return
    (found,) = problems(TINY, override)
    assert said in found
