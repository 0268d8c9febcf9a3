"""The command line stays light, works where no SLURM is, and a dry run leaves and tells nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, TRAIN, Project, fake_slurm
from tests.conftest import ROOT

HEAVY = {"torch", "torchtitan", "numpy", "submitit", "rich", "prometheus_client", "transformers", "datasets"}
# Runs the command line in this process, then says which modules it needed.
_PROBE = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({m.partition(".")[0] for m in sys.modules})), file=sys.stderr))
from xgen.cli.main import main
sys.argv[0] = "xgen"
main()
"""


def modules_of(project: Project, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments], cwd=project.path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("submit", "--help"),
        ("submit", "hello.yaml", "--cluster", "batch", "--dry-run"),
        ("submit", "train.yaml", "--cluster", "batch", "--dry-run"),
        ("plan", "train.yaml", "--cluster", "batch"),
        ("status", "--cluster", "local"),
        ("cluster", "list"),
        ("cluster", "show", "local"),
        ("schema",),
    ],
    ids=" ".join,
)
def test_no_command_that_only_reads_loads_what_is_slow(project: Project, arguments: tuple[str, ...]) -> None:
    loaded = modules_of(project, *arguments)
    assert "xgen" in loaded
    assert loaded & HEAVY == set()


def test_help_does_not_even_load_the_specs(project: Project) -> None:
    assert modules_of(project, "--help") & {"pydantic", "yaml"} == set()


def test_help_names_every_command_and_where_to_start(project: Project) -> None:
    done = project.xgen("--help")
    assert done.returncode == 0
    for command in ("submit", "plan", "status", "logs", "cancel", "resume", "schema"):
        assert f"\n  {command} " in done.stdout
    assert "xgen submit jobs/tiny/pretrain.yaml --cluster dev --dry-run" in done.stdout


@pytest.mark.parametrize("path", ["", "/nonexistent"], ids=["empty", "no-slurm"])
def test_a_dry_run_needs_no_slurm_and_leaves_nothing(project: Project, path: str) -> None:
    before = project.files()
    done = project.xgen("submit", "hello.yaml", "--cluster", "batch", "--dry-run", "--id", "abc123", env={"PATH": path})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=hello-abc123\n#SBATCH --partition=gpu\n")
    assert done.stdout.endswith("\ndecide\n")
    assert project.files() == before


def test_a_dry_run_says_the_same_every_time(project: Project) -> None:
    arguments = ("submit", "train.yaml", "--cluster", "batch", "--dry-run", "--id", "abc123")
    assert project.xgen(*arguments).stdout == project.xgen(*arguments).stdout


def test_a_dry_run_of_stages_prints_each_script_that_is_submitted(project: Project, tmp_path: Path) -> None:
    stages = "  - {name: anneal, tokens: 10k}\n  - {name: long, tokens: 10k, resources: {nodes: 1}}\n"
    (project.path / "train.yaml").write_text(TRAIN + stages)
    arguments = ("submit", "train.yaml", "--cluster", "batch", "--id", "abc123")
    printed = project.xgen(*arguments, "--dry-run").stdout
    first, *others = printed.split("\n# ---- batch script of stage ")
    # Jobs get the numbers 1, 2, 3; a dependency is no matter of the scheduler's own check.
    sbatch = f"""case "$1" in
      --test-only) ! grep -q "^#SBATCH --dependency=" ;;
      *) number=$(($(ls {tmp_path}/submitted.* 2>/dev/null | wc -l) + 1))
         for script; do :; done
         cp "$script" {tmp_path}/submitted.$number; echo "Submitted batch job $number" ;;
    esac"""
    environment = fake_slurm(tmp_path, sbatch)
    done = project.xgen(*arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    submitted = [(tmp_path / f"submitted.{number}").read_text() for number in (1, 2, 3)]
    assert first == "# ---- batch script of stage only\n" + submitted[0]
    numbered = [text.replace("JOB_OF_only", "1").replace("JOB_OF_anneal", "2") for text in others]
    assert numbered == ["anneal\n" + submitted[1], "long\n" + submitted[2]]
    assert "#SBATCH --dependency=afterok:JOB_OF_anneal\n" in others[1]


def test_without_slurm_a_submission_says_so_and_leaves_nothing(project: Project) -> None:
    before = project.files()
    done = project.xgen("submit", "hello.yaml", "--cluster", "batch", env={"PATH": "/nonexistent"})
    assert done.stderr.splitlines() == [
        "cluster batch: sbatch --test-only: sbatch is not on PATH: there is no SLURM client on this machine"
    ]
    assert (done.returncode, done.stdout) == (2, "")
    assert project.files() == before


def test_a_secret_is_not_in_the_dry_run_only_its_name(project: Project) -> None:
    (project.path / "hello.yaml").write_text(HELLO + "secrets: {HF_TOKEN: {env: MY_TOKEN}}\n")
    done = project.xgen("submit", "hello.yaml", "--cluster", "batch", "--dry-run", env={"MY_TOKEN": "hf_xyzzy_42"})
    assert done.returncode == 0
    assert "hf_xyzzy_42" not in done.stdout + done.stderr
    exported = [line for line in done.stdout.splitlines() if line.startswith("EXPORT=")]
    assert len(exported) == 1
    assert exported[0].endswith(",XGEN_SECRETS_KEY")  # a name; the key itself is made at submission


def test_plan_prints_one_json_document(project: Project) -> None:
    done = project.xgen("plan", "train.yaml", "--cluster", "local", "--json", "--set", "resources.partition=abrupt")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (document["name"], document["cluster"]) == ("train", "local")
    (stage,) = document["stages"]
    assert stage["num_steps"] == 79
    assert stage["memory"]["total"] > stage["memory"]["state"] == 4 * stage["memory"]["parameters"]
    assert stage["memory"]["of_gpu"] is None
    assert stage["tokens_per_second"] * stage["step_seconds"] == pytest.approx(1024)
    assert stage["mfu"] == 0.35
    assert "plan" not in document
    assert document["warnings"] == [
        "the partition preempts without grace: only periodic checkpoints protect the run, "
        "about 21s of training each time"
    ]


@pytest.mark.parametrize("mttf", ["0s", "soon"])
def test_a_time_between_failures_that_is_none_is_a_mistake(project: Project, mttf: str) -> None:
    done = project.xgen("plan", "train.yaml", "--cluster", "local", "--mttf", mttf)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--mttf: ")


def test_no_runs_is_not_an_error(project: Project) -> None:
    done = project.xgen("status", "--cluster", "local")
    said = f"no runs in {project.runs}, which is not there yet; write xgen submit SPEC\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert json.loads(project.xgen("status", "--cluster", "local", "--json").stdout) == []


def test_an_sbatch_that_does_not_read_its_input_kills_nobody() -> None:
    text = (
        "import subprocess, sys\nfrom xgen.cli import main\n"
        "def app():\n subprocess.run(['true'], input='x' * 10**6, text=True)\n print('went on')\n"
        "main.app = app\nmain.main()"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_reader_that_goes_away_is_no_error(project: Project) -> None:
    text = f"cd {project.path} && {sys.executable} -m xgen.cli.main schema | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("{\n", "")
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # 0 where the reader was slow and the pipe took it all
