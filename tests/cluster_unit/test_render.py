"""The text of the batch script, exactly. XGEN_GOLDEN=write pytest tests/cluster_unit writes the files anew."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xgen.cluster.checks import checks_text
from xgen.cluster.host import host_library
from xgen.cluster.mounts import all_mounts
from xgen.cluster.render import render
from xgen.cluster.runtimes import RUNTIMES, Box
from xgen.images.resolve import NO_IMAGE, Image
from xgen.runs import RunDir
from xgen.spec import Command, Curate, Export, Job, Mount, Pretrain, Profile, RuntimeName, Validation, dump

GOLDEN = Path(__file__).parent / "golden"
HOST = host_library()
RUN = RunDir(Path("/shared/runs/small-abc234"))


def profile(**keys: Any) -> Profile:
    base: dict[str, Any] = {
        "run_root": "/shared/runs",
        "partitions": {"gpu": {"max_time": "1d", "default": True}, "preempt": {"preemptible": True, "grace": "2m"}},
        "container": {"python": "/opt/xgen/bin/python"},
        "env": {"NCCL_SOCKET_IFNAME": "ib0"},
    }
    return Profile.model_validate(base | keys)


def command(**keys: Any) -> Command:
    base: dict[str, Any] = {
        "kind": "command",
        "name": "small",
        "command": ["python3", "work.py"],
        "resources": {"nodes": 2, "gpus_per_node": 4, "time": "90m"},
        "lead": "2m",
    }
    return Command.model_validate(base | keys)


def pretrain() -> Pretrain:
    return Pretrain.model_validate(
        {
            "kind": "pretrain",
            "name": "small",
            "project": "team-a",
            "model": "tiny",
            "data": {"store": "/shared/stores/web"},
            "resources": {
                "partition": "preempt", "nodes": 2, "gpus_per_node": 8, "cpus_per_task": 12, "memory": "1TB",
                "time": "1d12h30s",
            },
            "container": {"image": "trainer", "mounts": ["/scratch/me:/scratch", "/shared/data:/data:ro"]},
            "env": {"GREETING": "it's $5, all in", "NCCL_SOCKET_IFNAME": "eth0"},
            "secrets": {"HF_TOKEN": {"env": "MY_TOKEN"}},
            "stages": [{"name": "a", "tokens": "1M", "seq_len": "4k", "global_batch": "64k", "lr": {"peak": 1e-3}}],
        }
    )  # fmt: skip


DIGEST = "sha256:" + "9ab1" * 16
REGISTRY = Image("nvcr.io/team/trainer:1", "registry", f"nvcr.io/team/trainer@{DIGEST}", DIGEST)
FOLDER = Image("trainer", "folder", "/shared/images/.images/9ab19ab19ab1/folder", DIGEST)
ARCHIVE = Image("trainer", "tar", "/shared/images/.images/9ab19ab19ab1/image.tar", DIGEST)
SQUASHED = Image("trainer", "sqsh", "/shared/images/trainer.sqsh", "", 6_000_000_000, 1_790_000_000)
SIF = Image("trainer", "sif", "/shared/images/.images/9ab19ab19ab1/image.sif", DIGEST)


def cluster(runtime: str, **keys: Any) -> Profile:
    container = {"runtime": runtime, "image_dir": "/shared/images", "devices": ["/dev/infiniband"]}
    return profile(container=container, gpus={"request": "gres", "type": "h100"}, srun_args=["--mpi=none"], **keys)


CASES: dict[str, tuple[Job, Profile, Image]] = {
    "none": (command(), profile(), NO_IMAGE),
    "charliecloud": (pretrain(), cluster("charliecloud"), FOLDER),
    "pyxis": (pretrain(), cluster("pyxis"), SQUASHED),
    "pyxis-registry": (command(), cluster("pyxis"), REGISTRY),
    "enroot": (pretrain(), cluster("enroot"), SQUASHED),
    "enroot-registry": (command(), cluster("enroot"), REGISTRY),
    "docker": (pretrain(), cluster("docker"), ARCHIVE),
    "docker-registry": (command(container={"image": "x", "entrypoint": True}), cluster("docker"), REGISTRY),
    "podman": (pretrain(), cluster("podman"), FOLDER),
    "podman-registry": (command(container={"image": "x", "as_root": True}), cluster("podman"), REGISTRY),
    "apptainer": (pretrain(), cluster("apptainer"), SIF),
    "singularity": (command(container={"image": "x", "as_root": True}), cluster("singularity"), REGISTRY),
    "cpu": (
        command(resources={"time": "5m"}, env={"LINES": "one\ntwo"}),
        profile(gpus={"request": "none"}, env={}, container={"python": "/path with spaces/python"}),
        NO_IMAGE,
    ),
    "array": (command(array={"shards": 100, "at_once": 8}), cluster("pyxis"), SQUASHED),
    "array-docker": (command(array={"shards": 3}), cluster("docker"), REGISTRY),
    "fake-gpus": (command(), profile(gpus={"devices": "/srv/my gpus/{}"}, container={"runtime": "podman"}), FOLDER),
}


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_the_golden_text(name: str) -> None:
    text = text_of(name)
    assert text.count(HOST) == 1
    text = text.replace(HOST, "# … the text of xgen/cluster/host/ …\n")
    assert text.count(checks_text()) == 1
    text = text.replace(checks_text(), "# … the text of xgen/cluster/host/checks.sh …\n")
    file = GOLDEN / f"{name}.sh"
    if os.environ.get("XGEN_GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def text_of(name: str) -> str:
    job, cluster, image = CASES[name]
    return render(job, cluster, RUN, image)


def inner_scripts(text: str) -> list[str]:
    """What the batch script writes for the nodes and the tasks."""
    return re.findall(r"\.sh\" <<'END'\n(.*?)\nEND\n", text, re.DOTALL)


@pytest.mark.parametrize("name", CASES)
def test_every_script_is_clean_under_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        if os.geteuid() == 0 and Path("/etc/debian_version").exists():
            pytest.fail("shellcheck is not installed; write make setup")
        pytest.skip("shellcheck is not installed")
    text = text_of(name)
    for script in (text, *inner_scripts(text)):
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("name", CASES)
def test_bash_reads_it(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text_of(name), capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_first_command_traps_term() -> None:
    lines = [line for line in text_of("none").splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("trap '' TERM")


def test_rendering_is_pure() -> None:
    assert text_of("none") == text_of("none")


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("1s", "0-00:01:00"),
        ("60s", "0-00:01:00"),
        ("61s", "0-00:02:00"),
        ("1d1h1m", "1-01:01:00"),
        ("48h", "2-00:00:00"),
    ],
)
def test_time_is_slurm_s_rounded_up_to_a_minute(time: str, said: str) -> None:
    assert f"\n#SBATCH --time={said}\n" in render(command(resources={"time": time}), profile(), RUN, NO_IMAGE)


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ({"request": "gpus-per-node"}, ["#SBATCH --gpus-per-node=4"]),
        ({"request": "gpus-per-node", "type": "h100"}, ["#SBATCH --gpus-per-node=h100:4"]),
        ({"request": "gres"}, ["#SBATCH --gres=gpu:4"]),
        ({"request": "gres", "type": "a100"}, ["#SBATCH --gres=gpu:a100:4"]),
        ({"request": "none"}, []),
    ],
)
def test_gpus_are_asked_for_as_the_cluster_wants(gpus: dict[str, str], said: list[str]) -> None:
    text = render(command(), profile(gpus=gpus), RUN, NO_IMAGE)
    assert re.findall(r"^#SBATCH --g.*$", text, re.MULTILINE) == said
    assert ("--gpu-bind=none" in text) == bool(said)


def test_the_job_s_variables_win_over_the_profile_s_and_are_quoted() -> None:
    text = render(command(env={"A": "it's\n$x", "B": "1"}), profile(env={"A": "theirs", "C": "2"}), RUN, NO_IMAGE)
    exports = re.findall(r"^  export ([ABC])=", text, re.MULTILINE)
    assert sorted(exports) == ["A", "B", "C"]
    assert f"\n  export A={shlex.quote(chr(10).join(['it' + chr(39) + 's', '$x']))}\n" in text


def test_of_a_secret_the_text_has_the_name_of_its_key_only() -> None:
    text = text_of("docker")
    assert "MY_TOKEN" not in text
    assert "HF_TOKEN" not in text
    assert re.search(r"^FROM_CLIENT='.*\bXGEN_SECRETS_KEY'$", text, re.MULTILINE)
    assert "--env=XGEN_SECRETS_KEY" in text
    assert "XGEN_SECRETS_KEY" not in text_of("none")


def test_values_of_variables_are_in_no_command_line_of_a_container() -> None:
    for name in ("docker", "podman", "enroot", "pyxis", "apptainer"):
        before, tasks = text_of(name).split("run_tasks() {")
        assert before.count("all in") == 1  # where it is exported
        assert "all in" not in tasks  # srun's command line, and the scripts of nodes and tasks
        assert "GREETING" in tasks


def box(**keys: Any) -> Box:
    base: dict[str, Any] = {"run": "small-abc234", "image": FOLDER, "mounts": (), "workdir": "/run/code", "env": ("A",)}
    return Box(**base | keys)


def test_charliecloud_binds_what_the_work_needs() -> None:
    mounts = (Mount(source="/a b"), Mount(source="/c", target="/in"))
    image = Image("x", "folder", "/images/x y")
    launch = RUNTIMES["charliecloud"].launch(box(image=image, mounts=mounts))
    assert launch.srun_args == []
    assert launch.prefix == ["ch-run", "'--bind=/a b:/a b'", "--bind=/c:/in", "--cd=/run/code", "'/images/x y'", "--"]


def test_without_a_container_neither_image_nor_mounts_are_used() -> None:
    launch = RUNTIMES["none"].launch(box(mounts=(Mount(source="/a"),)))
    assert (launch.setup, launch.srun_args, launch.prefix) == ([], ["--chdir=/run/code"], [])


@pytest.mark.parametrize("runtime", sorted(set(RUNTIMES) - {"none"}))
def test_what_a_runtime_cannot_say_is_a_problem_and_never_a_wrong_mount(runtime: RuntimeName) -> None:
    """Every odd path is refused, or stands in the text in a form that the runtime reads as that path."""
    odd = ["/a b", "/a,b", "/a:b", '/a"b', "/a'b", "/a$b"]
    read = {
        "docker": lambda p: ('"source=' + p.replace('"', '""') + '"') if set(p) & set('",') else f"source={p},",
        "podman": lambda p: ('"source=' + p.replace('"', '""') + '"') if set(p) & set('",') else f"source={p},",
        "charliecloud": lambda p: f"--bind={p}:{p}",
        "apptainer": lambda p: f"--bind={p.replace(',', chr(92) + ',').replace(':', chr(92) + ':')}:",
        "singularity": lambda p: f"--bind={p.replace(',', chr(92) + ',').replace(':', chr(92) + ':')}:",
        "pyxis": lambda p: f"{p}:{p}",
        "enroot": lambda p: f"{p}:{p}:none",
    }
    for path in odd:
        one = box(mounts=(Mount(source=path),), image=FOLDER)
        if [key for key, _ in RUNTIMES[runtime].problems(one)]:
            assert any(c in path for c in ":,\"'$ ")
            continue
        launch = RUNTIMES[runtime].launch(one)
        words = shlex.split(" ".join([*launch.srun_args, *launch.prefix, *(w.rstrip("\\") for w in launch.task)]))
        assert any(read[runtime](path) in word for word in words), (path, words)


def test_the_spec_s_mounts_win_over_the_profile_s_at_the_same_place() -> None:
    announced = str(RUN.discovery_file.parent)
    job = command(container={"image": "x", "mounts": ["/mine:/data:ro"]})
    mounts = all_mounts(job, profile(container={"mounts": ["/theirs:/data", "/etc/slurm"]}), RUN)
    assert [(m.source, m.place, m.read_only) for m in mounts] == [
        (str(RUN.path), str(RUN.path), False), (str(RUN.code_dir), str(RUN.code_dir), True),
        (announced, announced, False), ("/mine", "/data", True), ("/etc/slurm", "/etc/slurm", False),
    ]  # fmt: skip


def test_held_out_text_is_in_the_container() -> None:
    job = pretrain().model_copy(update={"validation": Validation(store="/shared/held-out")})
    assert Mount(source="/shared/held-out", read_only=True) in all_mounts(job, profile(), RUN)


def test_an_export_has_the_run_that_it_exports_and_the_store_with_its_tokenizer(tmp_path: Path) -> None:
    source, run = RunDir(tmp_path / "small-source"), RunDir(tmp_path / "export-abc234")
    source.create()
    source.spec_file.write_text(dump(pretrain()))
    job = Export.model_validate(
        {"kind": "export", "name": "export", "run": "small-source", "container": {"image": "x"}, "lead": "30s",
         "resources": {"nodes": 1, "gpus_per_node": 1, "time": "5m"}}
    )  # fmt: skip
    (store,) = pretrain().data.folders.values()
    mounts = {m.source: m.read_only for m in all_mounts(job, profile(), run)}
    assert (mounts[str(source.path)], mounts[store]) == (False, True)
    elsewhere = job.model_copy(update={"out": "/shared/models/small", "tokenizer": "/shared/tokenizer.json"})
    mounts = {m.source: m.read_only for m in all_mounts(elsewhere, profile(), run)}
    assert (mounts[str(source.path)], mounts["/shared/models"], mounts["/shared"]) == (True, False, True)
    assert store not in mounts


def test_a_job_without_gpus_asks_for_none_and_has_one_task_a_node() -> None:
    job = command(resources={"nodes": 2, "gpus_per_node": 0, "time": "90m"})
    lines = render(job, profile(), RUN, SIF).splitlines()
    assert "#SBATCH --ntasks-per-node=1" in lines
    assert "NUM_TASKS=2" in lines
    assert not [line for line in lines if "gpu" in line and line.startswith("#SBATCH") and "partition" not in line]
    assert not [line for line in lines if "--gpu-bind" in line]


def test_a_curation_has_what_it_reads_and_where_it_writes_in_the_container() -> None:
    job = Curate.model_validate(
        {
            "kind": "curate", "name": "web", "out": "/shared/corpora/web", "inputs": [{"path": "/raw/web"}],
            "work": "/scratch/web", "tokenizer": "/shared/tokenizer.json", "mixtures": {"broad": {"tokens": "1M"}},
            "quality": {"labels": {"good": ["/seeds/good"], "bad": ["/seeds/bad"]}}, "resources": {"time": "1h"},
        }
    )  # fmt: skip
    mounts = {mount.source: mount.read_only for mount in all_mounts(job, profile(), RUN)}
    assert (mounts["/shared/corpora"], mounts["/scratch"]) == (False, False)
    assert [mounts[path] for path in ("/raw/web", "/shared", "/seeds/good", "/seeds/bad")] == [True] * 4


def test_a_file_that_is_read_comes_with_its_folder_which_stays_writable_where_it_is_written(tmp_path: Path) -> None:
    """ch-run makes mount points as folders, and cannot bind a file to one."""
    (tmp_path / "models").mkdir()
    (tmp_path / "tokenizers").mkdir()
    for file in (tmp_path / "models/tokenizer.json", tmp_path / "tokenizers/tokenizer.json"):
        file.touch()
    job = Export.model_validate(
        {"kind": "export", "name": "export", "run": "small-source", "container": {"image": "x"}, "lead": "30s",
         "resources": {"nodes": 1, "gpus_per_node": 1, "time": "5m"}, "out": str(tmp_path / "models/small")}
    )  # fmt: skip

    def mounted(tokenizer: str) -> dict[str, bool]:
        own = job.model_copy(update={"tokenizer": str(tmp_path / tokenizer)})
        return {m.source: m.read_only for m in all_mounts(own, profile(), RunDir(tmp_path / "export-abc234"))}

    assert mounted("tokenizers/tokenizer.json")[str(tmp_path / "tokenizers")]
    assert not mounted("models/tokenizer.json")[str(tmp_path / "models")]
    assert not any(source.endswith(".json") for source in mounted("models/tokenizer.json"))
