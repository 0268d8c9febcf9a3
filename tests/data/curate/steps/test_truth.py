"""What was planted in a corpus of real text is found, and the stores hold exactly what the plan says."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from tests.data.curate.steps.conftest import Curated
from xgen.data.curate.frequency import FINEWEB2
from xgen.data.curate.report_model import Count, sum_of
from xgen.data.curate.steps.results import TABLE_FILE, TOKENS_FILE
from xgen.data.curate.steps.run import run_step
from xgen.data.curate.texts import Texts
from xgen.data.curate.tiny.check import check
from xgen.data.curate.tiny.corpus import Truth, read_truth
from xgen.data.curate.words import hash_words
from xgen.data.errors import StoreError


def planted(curated: Curated, kind: str) -> list[Truth]:
    found = [row for row in read_truth(curated.raw) if row.kind == kind]
    assert found
    return found


def documents(curated: Curated, mixture: str) -> dict[str, list[bytes]]:
    """Of each domain the documents of a store, as bytes of tokens, in the order of its parts."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for part in curated.store(mixture).parts:
        found[part.meta.domain] += [part.document(n).tobytes() for n in range(part.meta.num_documents)]
    return found


def kept(curated: Curated) -> dict[bytes, list[tuple[int, int]]]:
    """Of each content that was kept: number and cluster size of its documents."""
    found: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for item in curated.context.units_of("select"):
        tokens = np.fromfile(item.folder / TOKENS_FILE, dtype="<u2")
        with pyarrow.memory_map(str(item.folder / TABLE_FILE)) as file:
            for row in pyarrow.ipc.open_file(file).read_all().to_pylist():
                content = tokens[row["begin"] : row["begin"] + row["num_tokens"]].tobytes()
                found[content].append((row["number"], row["size"]))
    return found


def test_of_all_exact_copies_one_stays_and_their_number_is_known(curated: Curated) -> None:
    clusters: dict[str, set[str]] = defaultdict(set)
    for row in planted(curated, "exact"):
        clusters[row.of] |= {row.id, row.of}
    for of, members in clusters.items():
        every = [curated.fates[name] for name in members]
        filtered = [
            fate for fate in every if fate.reason.startswith("gopher")
        ]  # one copy may have too many empty lines
        stays = [fate for fate in every if fate.label == fate.number and fate not in filtered]
        duplicates = [fate for fate in every if fate.reason in ("exact.duplicate", "near.duplicate")]
        assert len(stays) <= 1, of
        assert len(duplicates) + len(stays) + len(filtered) == len(members)
        assert {fate.size for fate in every} == {every[0].size}
        assert every[0].size >= len(members)


def test_near_copies_are_found(curated: Curated) -> None:
    rows = planted(curated, "near")
    assert len(rows) > 20
    both = [row for row in rows if not (curated.fates[row.id].reason or curated.fates[row.of].reason)]
    assert both == []


def test_all_that_was_planted_is_accounted_for(curated: Curated) -> None:
    rows = {row.what: row for row in check(curated.raw, curated.job)}
    complete = [row for what, row in rows.items() if "copies" in what or "leaks" in what]
    assert all(row.right == row.documents for row in complete)
    assert sum(row.documents for row in complete) > 100
    spam, real = rows["spam: gone"], list(rows.values())[-1]
    assert 0 < spam.right < spam.documents  # without a model
    assert 0 < real.right < real.documents


def test_no_document_with_an_evaluation_item_is_in_a_store(curated: Curated) -> None:
    rows = planted(curated, "leak")
    assert [row.id for row in rows if not curated.fates[row.id].reason] == []
    assert (
        sum(one.leaked for one in curated.report.leaks) >= len({row.of for row in rows}) * 0.9
    )  # duplicates go before
    found = Counter(reason.name for step in curated.report.steps if step.name == "leaks" for reason in step.reasons)
    assert set(found) <= {f"leaks.{one.name}" for one in curated.report.leaks}


def test_no_text_of_an_evaluation_item_is_in_the_tokens(curated: Curated) -> None:
    import json

    store = curated.store("once")
    tokenizer = store.tokenizer()
    grams = set()
    for domain in ("code", "native", "reference"):
        for line in (curated.raw / "evaluation" / f"{domain}.jsonl").read_text().splitlines():
            words = hash_words(Texts.of([json.loads(line)["question"]])).hashes.tolist()
            grams |= {tuple(words[at : at + 13]) for at in range(len(words) - 12)}
    assert len(grams) > 50
    for part in store.parts:
        texts = [tokenizer.decode(part.document(n)[:-1]) for n in range(part.meta.num_documents)]
        words = hash_words(Texts.of(texts))
        for begin, end in pairwise(words.offsets.tolist()):
            own = words.hashes[begin:end].tolist()
            assert not any(tuple(own[at : at + 13]) in grams for at in range(len(own) - 12))


@pytest.mark.parametrize("mixture", ["broad", "long"])
def test_a_budget_is_met_to_the_token(curated: Curated, mixture: str) -> None:
    meta = curated.store(mixture).meta
    assert meta.num_tokens == curated.job.mixtures[mixture].tokens
    assert sum(part.meta.num_tokens for part in curated.store(mixture).parts) == meta.num_tokens
    tokens = {domain.name: domain.num_tokens for domain in meta.domains}
    if mixture == "broad":
        assert tokens == {"code": 240_000, "reference": 180_000, "literature": 180_000}


def test_what_a_budget_cannot_have_is_said(curated: Curated) -> None:
    once = next(one for one in curated.report.mixtures if one.name == "once")
    assert once.written == once.planned < once.budget == 10**9
    assert once.written == sum(quota.supply for quota in once.quotas)
    assert any("are missing" in line for line in once.unmet)


def test_the_table_of_frequencies_is_applied_as_it_stands(curated: Curated) -> None:
    """One pass over everything: the copies of a document in the store are those of the table for its cluster."""
    written = Counter(content for contents in documents(curated, "once").values() for content in contents)
    known = kept(curated)
    assert set(written) == set(known)
    wanted = {content: sum(int(FINEWEB2(np.array([size]))[0]) for _, size in rows) for content, rows in known.items()}
    assert written == wanted
    assert len(set(wanted.values())) >= 4  # of sizes 1, 2, 3, 5 and more


def test_copies_of_a_document_never_follow_each_other(curated: Curated) -> None:
    for mixture in ("broad", "once"):
        store = curated.store(mixture)
        for part in store.parts:
            own = [part.document(n).tobytes() for n in range(part.meta.num_documents)]
            again = sum(one == other for one, other in pairwise(own))
            assert again == 0 or len(set(own)) == 1, (mixture, part.meta.name)


def test_every_document_ends_as_the_store_says_and_a_cut_one_begins_as_it_did(curated: Curated) -> None:
    store = curated.store("broad")
    store.verify()
    known = kept(curated)
    cut = 0
    for contents in documents(curated, "broad").values():
        for content in contents:
            if content not in known:
                cut += 1
                assert any(whole.startswith(content[:-2]) for whole in known)
                assert content[-2:] == np.array([store.meta.end_of_text], dtype="<u2").tobytes()
    assert cut <= 3  # one a domain


def test_long_documents_have_their_share(curated: Curated) -> None:
    long = next(one for one in curated.report.mixtures if one.name == "long")
    assert sum(quota.tokens for quota in long.quotas if quota.part == "long") == 24_000


def test_broken_records_are_counted_with_their_reasons(curated: Curated) -> None:
    found = {row.reason: row.records for row in curated.report.quarantine}
    assert found == {
        "has the id of a record before it": 10,
        "is no JSON": 3,  # too short a line, no UTF-8, half of a surrogate pair
        "is no object but list": 1,
        "has no 'text'": 1,
        "has 'text' that is not text": 1,
        "is longer than 33,554,432 bytes": 1,
        "is damaged": 1,
    }
    broken = curated.report.inputs[-1]
    assert broken.quarantined == 8
    # What is good beside them is read: 200 records after the long one, 15 with ids.
    assert broken.read.documents == 215


def test_a_record_with_an_id_that_was_there_adds_to_no_frequency(curated: Curated) -> None:
    sizes = [fate.size for name, fate in curated.fates.items() if name.startswith("same-")]
    assert sizes == [2] * 5  # each beside the page of the same words in the long file


def test_the_funnel_adds_up(curated: Curated) -> None:
    steps = curated.report.steps
    names = ["read", "gopher_repetition", "gopher_quality", "pii", "ids", "exact", "near", "leaks", "common_lines"]
    assert [step.name for step in steps] == names
    for before, step in pairwise(steps):
        assert step.taken == before.kept, step.name
        assert {step.lost, *(flow.lost for flow in step.by_domain.values())} == {Count()}, step.name
        assert step.dropped == sum_of(reason.dropped for reason in step.reasons), step.name
    assert steps[-1].kept.documents == sum(domain.documents for domain in curated.report.domains)
    assert steps[0].kept.documents == sum(one.read.documents for one in curated.report.inputs)


def test_every_reason_has_samples_to_read(curated: Curated) -> None:
    for step in curated.report.steps:
        for reason in step.reasons:
            assert 1 <= len(reason.samples) <= 5
            assert all(sample.text for sample in reason.samples)
            if reason.name in ("exact.duplicate", "near.duplicate"):
                assert all(sample.other_text for sample in reason.samples)


def test_records_without_a_domain_are_sorted_by_their_source(curated: Curated) -> None:
    names = {step.name: set(step.by_domain) for step in curated.report.steps}
    assert names["read"] == {"code", "native", "reference", "literature", "web", "crawl"}


def test_the_stores_train_the_stages_of_the_tiny_job(curated: Curated) -> None:
    from tests.conftest import ROOT
    from xgen.cli.common import check_mixture
    from xgen.spec import load_job

    spec = ROOT / "jobs/tiny/pretrain-stages.yaml"
    rows = check_mixture(load_job(spec, [f"data.store={curated.out / 'broad'}"]).job)
    assert {row["stage"] for row in rows} == {"broad", "anneal", "extend-512", "extend-2k"}


def test_another_spec_does_not_take_the_place_of_a_finished_corpus(curated: Curated) -> None:
    fewer = {name: one.model_copy(update={"tokens": 1000}) for name, one in curated.job.mixtures.items()}
    other = curated.job.model_copy(update={"mixtures": fewer, "replace": False})
    before = (curated.out / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match="holds the corpus of another spec"):
        run_step(other, "prepare")
    assert (curated.out / "manifest.json").read_bytes() == before


def test_a_step_refuses_the_plan_of_another_spec(curated: Curated, tmp_path: Path) -> None:
    other = curated.job.model_copy(update={"seed": 7, "out": str(tmp_path / "out"), "work": curated.job.work_folder})
    with pytest.raises(StoreError, match="of another spec"):
        run_step(other, "select")
