"""`xgen status --all`: clusters of this machine and those behind a real sshd, in one list."""

from __future__ import annotations

import json

from tests.conftest import ROOT
from tests.remote.conftest import Laptop
from tests.remote.test_commands import with_profiles


def test_all_clusters_are_one_list_and_one_that_is_not_reached_is_a_line(laptop: Laptop) -> None:
    env = with_profiles(laptop)
    far = laptop.plain("submit", "hello.yaml", "--cluster", "near", "--json", **env)
    assert far.returncode == 0, far.stderr
    name = json.loads(far.stdout)["run"]
    here = laptop.plain("submit", "hello.yaml", "--cluster", "local", "--json", **env)
    assert here.returncode == 0, here.stderr
    mine = json.loads(here.stdout)["run"]

    listed = laptop.plain("status", "--all", COLUMNS="200", **env)
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert listed.returncode == 0, listed.stderr
    assert rows[0][:3] == ["cluster", "run", "state"]
    assert [row[:2] for row in rows[1:3]] == [["near", name], ["batch,boxed,local", mine]]
    said = listed.stderr.splitlines()
    assert any(line.startswith("gone: localhost: nothing listens there: ") for line in said)
    place = f"{env['XDG_CONFIG_HOME']}/xgen/clusters/mixed.yaml: run_root"
    wrong = "a profile with ssh: has nothing else; run_root belongs in mixed.yaml on the cluster"
    assert f"mixed: {place}: {wrong}" in said
    places = json.loads(laptop.plain("status", "--all", "--json", **env).stdout)
    answers = {name: place for place in places for name in place["clusters"]}
    assert [run["name"] for run in answers["near"]["runs"]] == [name]
    assert (answers["near"]["host"], answers["near"]["error"], answers["local"]["host"]) == ("localhost", "", "")
    assert set(answers) >= {"near", "gone", "mixed", "local", *(p.stem for p in (ROOT / "slurm/clusters").glob("*"))}


def test_all_clusters_have_no_run_of_that_name(laptop: Laptop) -> None:
    done = laptop.plain("status", "hello", "--all")
    assert (done.returncode, done.stderr) == (2, "--all: asks every cluster for all its runs; leave out RUN\n")
