"""A curation of what lies in a bucket: the bytes of one of a folder, also where the wire was cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.curate.steps.conftest import KEYS, run_all, spec_of
from tests.data.remote import s3_server
from xgen.data import TokenStore
from xgen.data.curate.report_model import read_report
from xgen.data.curate.steps.run import run_step
from xgen.data.errors import InterruptedBuildError


def test_a_bucket_gives_the_stores_of_a_folder_and_a_cut_wire_costs_the_unit_under_way(
    raw: Path, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, web = store.path / "tokenizer.json", raw / "raw" / "web"
    mixtures = {"once": {"tokens": "1B", "max_epochs": 1}}
    with s3_server(monkeypatch) as bucket:
        places = [str(web), bucket.upload(web, "web")]
        here, there = (
            spec_of(raw, tokenizer, tmp_path / name, mixtures=mixtures, decontaminate=None, domains={"other": "web"},
                    inputs=[{"path": place, "keys": KEYS}], filters=[{"gopher_repetition": {}}])
            for name, place in zip(("here", "there"), places, strict=True)
        )  # fmt: skip
        run_all(here)
        run_step(there, "prepare")
        bucket.wire.limit = max(file.stat().st_size for file in web.iterdir()) // 2
        with pytest.raises(InterruptedBuildError, match=r"s3://raw/web/.*: broke off at byte .*; run it again"):
            run_step(there, "tag")
        assert not list(Path(there.work_folder).glob("tag/*/done.json"))
        bucket.wire.limit = 0
        run_all(there)
    one, other = (TokenStore.open(Path(job.out) / "once") for job in (here, there))
    assert one.meta.fingerprint == other.meta.fingerprint and one.meta.num_documents > 10
    assert read_report(Path(there.out)).quarantine == read_report(Path(here.out)).quarantine == ()
