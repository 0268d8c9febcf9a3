"""Commands from a laptop over a real sshd: what the cluster's xgen does is what one typed there would do."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from tests.cli.conftest import HELLO
from tests.remote.conftest import Laptop
from xgen.runs import RunDir

SECRETIVE = """\
kind: command
name: secretive
command: [sh, -c, 'printf %s "$ONE" "$TWO" | sha256sum; test "$THREE" = of-the-cluster && echo three']
resources: {partition: gpu, nodes: 1, gpus_per_node: 1, time: 5m}
lead: 30s
secrets: {ONE: {env: MY_ONE}, TWO: {file: two.txt}, THREE: {env: ITS_THREE}}
"""


def submitted(laptop: Laptop, *arguments: str, **env: str) -> RunDir:
    done = laptop.xgen("submit", *arguments, "--json", **env)
    assert (done.returncode, done.stderr) == (0, "")
    return RunDir(Path(json.loads(done.stdout)["path"]))


def tracked(folder: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("xgen/")}


def with_profiles(laptop: Laptop) -> dict[str, str]:
    """The environment of a person whose profiles lead to the login node (near), to nothing (gone), astray (mixed)."""
    folder = laptop.project.path
    profiles = folder.parent / "config/xgen/clusters"
    profiles.mkdir(parents=True)
    (folder / "slurm/clusters/near.yaml").write_text((folder / "slurm/clusters/local.yaml").read_text())
    ssh = {"host": "localhost", "port": laptop.login.port, "folder": "~/copies"}
    (profiles / "near.yaml").write_text(json.dumps({"ssh": ssh}))
    (profiles / "gone.yaml").write_text(json.dumps({"ssh": ssh | {"port": 9}}))
    (profiles / "mixed.yaml").write_text(json.dumps({"ssh": ssh, "run_root": "/shared"}))
    return {"XDG_CONFIG_HOME": str(folder.parent / "config")}


def test_what_is_submitted_from_a_laptop_is_what_runs_to_the_byte(laptop: Laptop) -> None:
    folder = laptop.project.path
    (folder / "hello.yaml").write_text(HELLO.replace("hi", "hello far away"))
    (folder / "new.py").write_text("print(1)\n")
    (folder / "runs").mkdir()
    (folder / "runs/big").write_text("git ignores it")
    run = submitted(laptop, "hello.yaml")
    assert run.path.is_relative_to(laptop.login.folder)
    there = tracked(run.code_dir)
    assert there["new.py"] == b"print(1)\n"
    assert there["hello.yaml"] == (folder / "hello.yaml").read_bytes()
    assert set(there) == {p for p in tracked(folder) if not p.startswith((".git/", "runs/", "store/"))}
    assert b"+command: [echo, hello far away]" in (run.path / "code.diff").read_bytes()
    assert len((run.path / "code.commit").read_text().strip()) == 40
    assert laptop.project.files() & {"runs/hello", str(run.path)} == set()

    done = laptop.xgen("logs", "--follow", run.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["0: hello far away", "1: hello far away"]

    # What is gone here goes there, but for what was never of the checkout: the runs.
    (folder / "new.py").unlink()
    second = submitted(laptop, "hello.yaml")
    assert "new.py" not in tracked(second.code_dir)
    assert run.path.is_dir()
    listed = json.loads(laptop.xgen("status", "--json").stdout)
    assert [row["name"] for row in listed] == [run.name, second.name]


def test_a_mistake_reads_as_it_does_here(laptop: Laptop) -> None:
    (laptop.project.path / "wrong.yaml").write_text(HELLO.replace("lead", "leed"))
    far, near = (ask("submit", "wrong.yaml") for ask in (laptop.xgen, laptop.plain))
    assert (far.returncode, far.stdout, far.stderr) == (near.returncode, near.stdout, near.stderr)
    assert far.stderr == "wrong.yaml: leed: unknown key; write lead\n"


def test_secrets_of_the_laptop_reach_the_tasks_and_no_file_and_those_of_the_cluster_are_found_there(
    laptop: Laptop,
) -> None:
    folder = laptop.project.path
    (folder / "secretive.yaml").write_text(SECRETIVE)
    (folder / ".gitignore").write_text("runs/\nstore\ntwo.txt\n")
    (folder / "two.txt").write_text("two-of-the-laptop\n")
    (folder / "two.txt").chmod(0o600)
    laptop.login.settings["ITS_THREE"] = "of-the-cluster"
    laptop.login.stop()
    laptop.login.start()
    run = submitted(laptop, "secretive.yaml", MY_ONE="one-of-the-laptop")
    done = laptop.xgen("logs", "-f", run.name)
    digest = hashlib.sha256(b"one-of-the-laptoptwo-of-the-laptop").hexdigest()
    assert sorted(done.stdout.splitlines()) == [f"0: {digest}  -", "0: three"]
    for file in (laptop.login.folder / "home").rglob("*"):
        with suppress(FileNotFoundError):  # of the supervisor, which is at its end
            assert not file.is_file() or b"of-the-laptop" not in file.read_bytes(), file


def test_a_run_that_is_resumed_has_the_variables_that_the_laptop_sends(laptop: Laptop) -> None:
    text = HELLO.replace("[echo, hi]", "[sh, -c, 'test \"$ONE\" = second']") + "secrets: {ONE: {env: MY_ONE}}\n"
    (laptop.project.path / "choosy.yaml").write_text(text)
    run = submitted(laptop, "choosy.yaml", MY_ONE="first")
    laptop.xgen("logs", "-f", run.name)
    refused = laptop.xgen("resume", run.name, MY_ONE="second")
    said = "secrets.ONE.env: MY_ONE is not set here; write export MY_ONE=… first\n"
    assert (refused.returncode, refused.stderr) == (2, said)
    done = laptop.xgen("resume", run.name, MY_ONE="second", XGEN_SEND_ENV="OTHER MY_ONE")
    assert (done.returncode, done.stderr) == (0, "")
    laptop.xgen("logs", "-f", run.name)
    assert json.loads(laptop.xgen("status", run.name, "--json").stdout)["status"]["state"] == "finished"


def test_a_profile_says_where_its_cluster_is(laptop: Laptop) -> None:
    env = with_profiles(laptop)
    far = laptop.plain("submit", "hello.yaml", "--cluster", "near", **env)
    assert (far.returncode, far.stderr) == (0, "")
    name = far.stdout.split()[0]
    assert far.stdout.endswith(
        f"watch it:   xgen status {name} --cluster near\n            xgen logs -f {name} --cluster near\n"
    )
    (path,) = (laptop.login.folder / "home/copies").glob(f"*/runs/{name}")
    assert path.is_dir()
