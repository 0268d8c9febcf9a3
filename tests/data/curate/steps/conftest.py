"""A raw corpus of some megabytes with all that is planted, and what a curation makes of it, once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xgen.data import TokenStore
from xgen.data.curate.report_model import Report, read_report
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.fates import Fate, fates
from xgen.data.curate.steps.folders import DONE_FILE
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.steps.run import run_step
from xgen.data.curate.tiny.corpus import write_corpus
from xgen.spec import Curate

DOMAINS = ("code", "native", "reference", "literature", "web")
KEYS = {"id": "id", "source": "source", "licence": "licence"}


def spec_of(raw: Path, tokenizer: Path, out: Path, **keys: Any) -> Curate:
    """What jobs/tiny/curate.yaml says, without the models, which take a minute to train."""
    base: dict[str, Any] = {
        "kind": "curate",
        "name": "small",
        "out": str(out),
        "replace": True,
        "inputs": [
            {"path": str(raw / "raw" / name), "domain": None if name == "web" else name, "keys": KEYS}
            for name in DOMAINS
        ]
        + [{"path": str(raw / "raw" / "broken"), "domain": "web", "keys": KEYS}],
        "domains": {"rules": {"readme": "web", "craw?": "crawl"}, "other": "unknown"},
        "filters": [
            {"domains": ["code", "native"]},
            {"domains": ["crawl", "web"], "gopher_repetition": {}, "gopher_quality": {"min_letter_words": 0.5}},
        ],
        "decontaminate": {
            "sets": [
                {"name": name, "path": str(raw / "evaluation" / f"{name}.jsonl"), "keys": ["question"]}
                for name in DOMAINS
            ]
        },
        "dedup": {"lines": {"except_domains": ["code", "native"]}},
        "tokenizer": str(tokenizer),
        "frequency": "fineweb2",
        "mixtures": {
            "broad": {
                "tokens": 600_000,
                "balance": {"weights": {"code": 0.4, "reference": 0.3, "literature": 0.3}},
                "max_epochs": 40,
            },
            "once": {"tokens": "1B", "max_epochs": 1},
            "long": {"tokens": 60_000, "long": {"min_tokens": 4096}, "max_epochs": 40},
        },
        "resources": {"time": "5m"},
        "seed": 3,
    }
    return Curate.model_validate(base | keys)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def marks(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob(DONE_FILE)}


def run_all(job: Curate) -> None:
    for step in job.steps:
        assert run_step(job, step) == "finished"


@dataclass(frozen=True)
class Curated:
    raw: Path
    job: Curate
    report: Report
    fates: dict[str, Fate]  # by id; of several records with an id the first

    @property
    def out(self) -> Path:
        return Path(self.job.out)

    @property
    def context(self) -> Context:
        work = Path(self.job.work_folder)
        return Context(self.job, work, read_plan(self.job))

    def store(self, mixture: str) -> TokenStore:
        return TokenStore.open(self.out / mixture)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "corpus"
    write_corpus(out, 3 << 20)
    return out


@pytest.fixture(scope="session")
def curated(raw: Path, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Curated:
    job = spec_of(raw, store.path / "tokenizer.json", tmp_path_factory.mktemp("curated") / "out")
    run_all(job)
    work = Path(job.work_folder)
    found: dict[str, Fate] = {}
    for fate in fates(Context(job, work, read_plan(job))):
        found.setdefault(fate.id, fate)
    return Curated(raw, job, read_report(Path(job.out)), found)


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
