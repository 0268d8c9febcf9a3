"""The unix group of a project: who may give a run to it."""

from __future__ import annotations

import os

import pytest

from xgen.cluster.group import why_not
from xgen.runs.users import user_name
from xgen.spec import Command, Partition, Profile, Project


def profile(group: str | None) -> Profile:
    return Profile(run_root="/runs", partitions={"gpu": Partition()}, projects={"nlp": Project(group=group)})


def job(project: str | None = "nlp") -> Command:
    resources = {"nodes": 1, "gpus_per_node": 1, "time": "5m"}
    spec = {"kind": "command", "name": "hello", "project": project, "command": ["true"], "resources": resources}
    return Command.model_validate(spec)


def test_a_group_that_the_machine_does_not_know_is_a_mistake_of_the_profile() -> None:
    said = why_not(job(), profile("no-such-group"))
    assert said == (
        "'nlp' is for group no-such-group, which this machine does not know; mend projects.nlp.group in the profile"
    )


def test_a_person_who_is_not_in_the_group_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    monkeypatch.setattr(os, "getgroups", lambda: [65534])
    said = why_not(job(), profile("daemon"))
    assert said == (
        f"'nlp' is for group daemon, and {user_name(65534)} is not in it; ask for it and log in again (`id` shows your "
        "groups), or write another project"
    )
    monkeypatch.setattr(os, "getgroups", lambda: [1])
    assert why_not(job(), profile("daemon")) == ""


@pytest.mark.parametrize(("name", "group"), [(None, "no-such-group"), ("nlp", None), ("other", "no-such-group")])
def test_without_a_group_there_is_nothing_to_be_in(name: str | None, group: str | None) -> None:
    assert why_not(job(name), profile(group)) == ""
