"""From plans to stores: unit by unit, stretch by stretch, run by run."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from tests.data.curate.steps.conftest import run_all
from xgen.data import StoreError, TokenStore
from xgen.data.curate.steps import shuffle
from xgen.data.curate.steps.balance import stretches
from xgen.data.curate.steps.run import run_step
from xgen.spec import Curate


def contents(store: TokenStore) -> dict[str, list[bytes]]:
    """Of each domain the documents, in their order."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for part in store.parts:
        found[part.meta.domain] += [part.document(n).tobytes() for n in range(part.meta.num_documents)]
    return found


def test_a_stretch_that_is_written_in_runs_holds_the_same(small: Curate, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(small)
    whole = TokenStore.open(Path(small.out) / "all")
    other = small.model_copy(update={"out": f"{small.out}-runs", "work": small.work_folder})
    monkeypatch.setattr(shuffle, "_RUN_TOKENS", 150)
    shutil.rmtree(Path(small.work_folder) / "shuffle")
    for name in ("shuffle", "assemble"):
        run_step(other, name)
    runs = TokenStore.open(Path(other.out) / "all")
    runs.verify()
    assert runs.meta.num_tokens == whole.meta.num_tokens == 2_000
    assert contents(runs) == contents(whole)  # no copies met, so the order is the same too


def test_a_unit_of_which_nothing_is_kept_adds_nothing(small: Curate, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text((tmp_path / "a.jsonl").read_text())
    raw = small.model_dump(mode="json")
    raw["inputs"].append({"path": str(tmp_path / "d.jsonl"), "domain": "d"})
    raw["mixtures"] = {"all": {"tokens": 9_000}}
    job = Curate.model_validate(raw)
    run_all(job)
    store = TokenStore.open(Path(job.out) / "all")
    assert store.meta.num_tokens == 9_000
    assert [domain.name for domain in store.meta.domains] == ["a", "b", "c"]


def test_tokens_that_are_cut_off_are_no_tokens(small: Curate) -> None:
    for step in small.steps[: small.steps.index("shuffle")]:
        run_step(small, step)
    (tokens, *_) = sorted((Path(small.work_folder) / "select").rglob("tokens.bin"))
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"tokens\.bin: is shorter than it was; remove the work folder"):
        run_step(small, "shuffle")


def test_stretches_grow_with_a_large_store() -> None:
    assert [stretches(tokens) for tokens in (1, 1 << 20, 1 << 32, 10**13)] == [1, 8, 64, 4096]


@pytest.mark.parametrize("key", ["balance", "max_epochs_of"])
def test_a_domain_that_no_record_has_is_found_before_anything_is_counted(
    small: Curate, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "named.jsonl"
    file.write_text("".join(f'{{"text": "{n} of some words", "of": "{"xy"[n % 2]}"}}\n' for n in range(20)))
    named = {"z": 1.0, "x": 2.0}
    mixture = {"tokens": 10, key: {"weights": named} if key == "balance" else named}
    raw = small.model_dump(mode="json") | {"mixtures": {"all": mixture}}
    job = Curate.model_validate(raw | {"inputs": [{"path": str(file), "keys": {"domain": "of"}}]})
    for step in job.steps[: job.steps.index("balance")]:
        run_step(job, step)
    said = r"mixtures\.all\.(balance\.weights|max_epochs_of): 'z' is no domain of the corpus; write one of x, y"
    with pytest.raises(StoreError, match=said):
        run_step(job, "balance")
    assert not (Path(job.work_folder) / "balance").exists()
