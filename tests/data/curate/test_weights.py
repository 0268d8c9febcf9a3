"""From the results of proxies to weights.yaml, and from there into a training and a curation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.train.test_proxies import JOB, load
from xgen.data import StoreError, mixtures_for, read_meta
from xgen.data.curate.proxies import ProxyResult, in_parts, proxies_of
from xgen.data.curate.regmix_model import RegmixReport
from xgen.data.curate.regmix_report import fit_report, write_fit
from xgen.data.curate.steps.folders import write_json
from xgen.data.curate.steps.run import run_step
from xgen.data.curate.weights import read_weights, with_weights, write_weights
from xgen.data.mixture import make_mixture
from xgen.data.tokenizer import Tokenizer
from xgen.spec import Curate, Pretrain, Regmix, load_job
from xgen.spec.pretrain import Share

CURATE: dict[str, Any] = {
    "kind": "curate", "name": "web", "out": "out", "tokenizer": "tokenizer.json", "resources": {"time": "1h"},
    "inputs": [{"path": "raw/web", "domain": "web"}, {"path": "raw/code", "domain": "code"}],
    "mixtures": {"broad": {"tokens": "2T", "balance": {"regmix": "weights.yaml"}}, "plain": {"tokens": "1T"}},
}  # fmt: skip


def train(job: Regmix, diverged: tuple[int, ...] = (), left: tuple[int, ...] = ()) -> None:
    """Results of a law: code wants its own text, and some literature."""
    for proxy in proxies_of(job).all:
        code, literature = proxy.weights["code"], proxy.weights["literature"]
        loss = 5 - 0.3 * (code + 0.2) ** 0.5 - 0.2 * literature**0.5
        found = ProxyResult(
            weights=proxy.weights,
            losses={} if proxy.number in diverged else {"code": loss, "literature": 6 - literature, "reference": 5.0},
            diverged="step 4: loss nan" if proxy.number in diverged else "",
        )
        if proxy.number not in left:
            proxy.folder.mkdir(parents=True, exist_ok=True)
            write_json(proxy.result_file, found)


def report(job: Regmix) -> RegmixReport:
    return RegmixReport.model_validate_json((Path(job.out) / "regmix.json").read_bytes())


def test_the_weights_keep_their_bounds_and_a_pretrain_spec_extends_them(tmp_path: Path) -> None:
    keys = {"num_proxies": 40, "target": {"code": 2}, "tokens": "2M", "max_epochs": 1, "max_epochs_of": {"code": 2}}
    job = load(tmp_path, **keys)
    train(job, diverged=(3, 17))
    write_fit(job)
    found = report(job)
    code, literature, reference = found.domains
    assert code.most == pytest.approx(2 * 635335 / 2e6, abs=2e-6)
    assert literature.most == pytest.approx(0.37819, abs=2e-6)
    assert code.weight <= 2 * 635335 / 2e6 and literature.weight == pytest.approx(literature.most, abs=0.02)
    assert reference.weight < 0.1
    assert found.loss < found.corpus_loss and found.scores[0].rank > 0.9
    assert (len(found.proxies), found.target) == (38, {"code": 1.0})
    assert found.diverged == {3: "step 4: loss nan", 17: "step 4: loss nan"}
    text = (tmp_path / "out/weights.yaml").read_text()
    assert "# mix: 38 proxies, target code 1.\n" in text
    assert "# Left out, for they diverged: 3, 17.\n" in text
    weights = read_weights(tmp_path / "out/weights.yaml")
    assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
    spec = {"extends": "out/weights.yaml", "kind": "pretrain", "name": "big", "resources": {"time": "1h"}}
    spec |= {"model": "tiny", "data": {"store": "store"}, "stages": JOB["proxy"]["stages"]}
    (tmp_path / "big.yaml").write_text(yaml.safe_dump(spec))
    big = load_job(tmp_path / "big.yaml").job
    assert isinstance(big, Pretrain)
    assert {name: share.weight for name, share in big.shares(big.stages[0]).items()} == weights
    page = (tmp_path / "out/regmix.html").read_text()
    assert page.count("<circle") == 38 and "step 4: loss nan" in page


def test_a_training_takes_the_weights_that_were_found_for_it(tmp_path: Path) -> None:
    metas = {"main": read_meta(Path(JOB["proxy"]["data"]["store"]))}
    for budget in range(2_000_000, 3_000_000, 99_999):
        job = load(tmp_path, num_proxies=20, tokens=budget, max_epochs=2, out=str(tmp_path / str(budget)))
        train(job)
        shares = {row.name: Share(weight=row.weight) for row in fit_report(job).domains if row.weight}
        make_mixture(metas, shares, job.max_epochs).check_caps(budget)


def test_what_the_fit_lacks_is_named_with_what_to_write(tmp_path: Path) -> None:
    job = load(tmp_path)
    train(job, left=(4, 7))
    with pytest.raises(StoreError, match="2 of 10 proxies have no result, the first is 4; run the step proxies first"):
        write_fit(job)
    train(job, diverged=(4,))
    said = r"9 of 10 proxies are left, and the fit takes 10; diverged: 4 \(step 4: loss nan\); write a lower "
    with pytest.raises(StoreError, match=said + r"proxy\.stages\[0\]\.lr\.peak, or num_proxies: 22"):
        write_fit(job)
    assert not (tmp_path / "out/weights.yaml").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"target": {"coda": 1}}, "target: 'coda' is no domain of the store; write code"),
        ({"corpus": {"code": "1B"}}, "corpus: says no tokens of 'literature', which the proxies have; write lit"),
        ({"corpus": {"cod": "1B"}}, "corpus: 'cod' is no domain of the store; write code"),
        (
            {"tokens": "1B", "max_epochs_of": {"cod": 1}},
            "max_epochs_of: 'cod' is no domain of the store; write code",
        ),
        ({"tokens": "1B"}, "all domains together may have 0.00821 of the budget; raise max_epochs"),
        (
            {"proxy": JOB["proxy"] | {"data": JOB["proxy"]["data"] | {"max_epochs": 1e-4}}},
            "proxy.data.max_epochs: all domains together may have 0.132 of a proxy's 1,536 tokens; write a larger one",
        ),
    ],
)  # fmt: skip
def test_proxies_that_cannot_be_are_refused(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError) as error:
        proxies_of(load(tmp_path, **keys))
    assert said in str(error.value)


def test_a_proxy_is_known_by_what_it_follows_from(tmp_path: Path) -> None:
    def folders(**keys: Any) -> list[str]:
        return [proxy.folder.name for proxy in proxies_of(load(tmp_path, **keys)).all]

    base = folders()
    assert folders(num_proxies=12)[:10] == base
    assert folders(target={"reference": 1}, array={"shards": 3}, resources={"time": "9h"}) == base
    assert folders(proxy=JOB["proxy"] | {"checkpoint": {"every": 50}}) == base
    assert not set(folders(proxy=JOB["proxy"] | {"seed": 5})) & set(base)
    assert folders(seed=1) != base
    assert folders(corpus={"code": "1B", "literature": "1B", "reference": "1B"}) != base


def test_the_caps_of_the_proxies_hold_to_the_token(tmp_path: Path) -> None:
    data = JOB["proxy"]["data"] | {"max_epochs": 0.0012}
    job = load(tmp_path, num_proxies=200, proxy=JOB["proxy"] | {"data": data})
    metas = {"main": read_meta(Path(data["store"]))}
    for proxy in proxies_of(job).all:
        mixtures_for(proxy.job, metas)  # which raises for what is seen too often


def curation(folder: Path, **keys: Any) -> Curate:
    (folder / "spec.yaml").write_text(yaml.safe_dump(CURATE | keys))
    job = load_job(folder / "spec.yaml").job
    assert isinstance(job, Curate)
    return job


def test_a_mixture_with_the_file_is_that_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "weights.yaml").write_text(write_weights({"web": 0.75, "code": 0.25, "books": 0.0}, "found"))
    job = curation(tmp_path)
    by_hand = curation(tmp_path, mixtures=CURATE["mixtures"] | {
        "broad": {"tokens": "2T", "balance": {"weights": {"web": 0.75, "code": 0.25}}}
    })  # fmt: skip
    assert with_weights(job) == by_hand == with_weights(by_hand)
    assert job.reads["mixtures.broad.balance.regmix"] == str(tmp_path / "weights.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory; name the weights.yaml that a regmix job has written"),
        ("data: {mixtures: {broad: {web: 1}}}", "has no data.mixtures.regmix of weights by domain; name the weights"),
        ("{", "has no data.mixtures.regmix of weights by domain"),
        ("data: {mixtures: {regmix: {web: -1}}}", "web: -1.0 is no weight; write 0 or more"),
        ("data: {mixtures: {regmix: {}}}", "has no domain with a weight in data.mixtures.regmix; name the weights"),
        ("data: {mixtures: {regmix: {web: 0, code: 0}}}", "has no domain with a weight in data.mixtures.regmix; name"),
        ("data: {mixtures: {regmix: {wbe: 1}}}", "'wbe', of mixtures.broad, is no domain of the inputs; write web"),
    ],
)
def test_a_file_that_is_no_such_is_named_with_what_to_write(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "weights.yaml").write_text(text)
    with pytest.raises(StoreError) as error:
        with_weights(curation(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}/weights.yaml: ")
    assert said in str(error.value)


def test_millionths_sum_to_one_and_nothing_stays_nothing() -> None:
    rows = np.random.default_rng(0).dirichlet(np.full(7, 0.2), 500)
    rows[rows < 1e-3] = 0
    rows /= rows.sum(axis=1, keepdims=True)
    found = in_parts(rows)
    assert (np.rint(found * 1e6).sum(axis=1) == 1_000_000).all()
    assert (found[rows == 0] == 0).all()
    assert np.abs(found - rows).max() < 1e-6


def test_a_curation_takes_the_file_and_what_it_says_belongs_to_its_recipe(tmp_path: Path) -> None:
    Tokenizer.train(["some text of few words"], 257).save(tmp_path / "tokenizer.json")
    for name in ("web", "code"):
        pages = [{"text": f"{name} {n}: " + " ".join(f"{name}{n * 7 + k}" for k in range(40))} for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, pages)) + "\n")
    inputs = [{"path": f"{name}.jsonl", "domain": name} for name in ("web", "code")]

    def curate(out: str, balance: dict[str, Any]) -> dict[str, int]:
        mixtures = {"broad": {"tokens": 4000, "balance": balance}}
        job = curation(tmp_path, inputs=inputs, out=out, mixtures=mixtures)
        for step in job.steps:
            assert run_step(job, step) == "finished"
        return {domain.name: domain.num_tokens for domain in read_meta(Path(job.out) / "broad").domains}

    file = tmp_path / "weights.yaml"
    file.write_text(write_weights({"code": 0.8, "web": 0.2}, "found"))
    assert curate("found", {"regmix": "weights.yaml"}) == {"code": 3200, "web": 800}
    assert curate("by-hand", {"weights": {"code": 0.8, "web": 0.2}}) == {"code": 3200, "web": 800}
    stores = [read_meta(tmp_path / out / "broad").fingerprint for out in ("found", "by-hand")]
    assert stores[0] == stores[1]
    file.write_text(write_weights({"code": 0.8, "web": 0.2}, "the same, said otherwise"))
    curate("found", {"regmix": "weights.yaml"})
    file.write_text(write_weights({"code": 0.7, "web": 0.3}, "found later"))
    with pytest.raises(StoreError, match="found: holds the corpus of another spec"):
        curate("found", {"regmix": "weights.yaml"})
