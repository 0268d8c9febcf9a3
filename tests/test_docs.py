"""What the documentation names is there: pages and headings that are linked, and the commands of the site guide."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from tests.conftest import ROOT
from xgen.cli.main import app
from xgen.cluster.doctor.finding import What

PAGES = [ROOT / "README.md", ROOT / "docker/README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = (ROOT / "docs/site.md").read_text(encoding="utf-8")
_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    return [block.replace("\\\n", " ") for block in _FENCED.findall(GUIDE)]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    heads = [head.lower().replace("`", "") for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        where = (page.parent / file).resolve() if file else page
        if "://" in target:
            continue
        if not where.exists() or (anchor and anchor not in anchors(where)):
            broken.append(target)
    assert broken == []


def commands() -> Iterator[str]:
    """Each call of xgen in the guide: a line of a block, or words in backticks."""
    lines = [line for block in blocks() for line in block.splitlines()]
    for text in [*lines, *re.findall(r"`([^`\n]+)`", _FENCED.sub("", GUIDE))]:
        if found := re.match(r"(?:\S*/)?(xgen(?: .*)?)$", text.partition(" #")[0].strip()):
            yield found[1]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_of_the_site_guide_is_one_with_these_options(line: str) -> None:
    group: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and hasattr(group, "get_command"):
        if words[0].startswith("-"):
            break
        context = group.make_context("xgen", [], resilient_parsing=True)
        found = group.get_command(context, words[0])
        assert found is not None, f"there is no {words[0]}"
        group, words = found, words[1:]
    known = {option for parameter in group.params for option in parameter.opts} | {"--help"}
    assert [word for word in words if word.startswith("-") and word not in known] == []


def test_every_file_of_the_repository_that_the_site_guide_names_is_there() -> None:
    named = set(re.findall(r"(?:src/|(?<![\w./-]))((?:jobs|monitoring|slurm|docker|docs)/[\w./-]*\w)", GUIDE))
    assert "jobs/tiny/hello.yaml" in named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_what_the_site_guide_asks_of_slurm_is_in_its_slurm_conf_and_the_doctor_knows_it() -> None:
    config = "\n".join(blocks())
    rows = re.findall(
        r"^\| (.+?) \| .+ \| (.+?) \|$", GUIDE.partition("| setting |")[2].partition("\n\n")[0], re.MULTILINE
    )
    settings = {name for cell, _ in rows for name in re.findall(r"`(\w+=[\w/]+)", cell)}
    later = {"AccountingStorageType=accounting_storage/slurmdbd"}  # the row says so
    assert len(settings) > 9
    assert sorted(name for name in settings - later if not re.search(rf"(^|\s){name}\b", config)) == []
    findings = {name for _, cell in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert sorted(findings - set(get_args(What))) == []
