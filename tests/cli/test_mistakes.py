"""Wrong specs and wrong calls: one line each that names file, key, value and fix; nothing is submitted or left."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from subprocess import CompletedProcess

import pytest

from tests.cli.conftest import HELLO, TRAIN, Project, make_project
from xgen.cli.common import fail


@dataclass(frozen=True)
class Mistake:
    """What a person does wrong, and the lines that tell them. `{at}` stands for the project's folder."""

    name: str
    said: list[str]
    settings: list[str] = field(default_factory=list)
    spec: str = "hello.yaml"
    text: str | None = None  # of wrong.yaml, which is then submitted
    cluster: str | None = "local"
    options: list[str] = field(default_factory=list)


def wrong(name: str, text: str, *said: str) -> Mistake:
    return Mistake(name, list(said), spec="wrong.yaml", text=text)


def setting(name: str, spec: str, change: str, *said: str) -> Mistake:
    return Mistake(name, list(said), settings=[change], spec=f"{spec}.yaml")


def call(name: str, said: str, *options: str, cluster: str | None = "local", spec: str = "hello.yaml") -> Mistake:
    return Mistake(name, [said], options=list(options), cluster=cluster, spec=spec)


MISTAKES = [
    # Shape: one file, one key.
    wrong("typo in a key", HELLO.replace("lead", "leed"), "wrong.yaml: leed: unknown key; write lead"),
    wrong(
        "typo in a nested key",
        TRAIN.replace("global_batch", "global_bach"),
        "wrong.yaml: stages[0].global_batch: is missing; add it",
        "wrong.yaml: stages[0].global_bach: unknown key; write global_batch",
    ),
    wrong(
        "wrong unit",
        HELLO.replace("5m", "5 parsecs"),
        "wrong.yaml: resources.time: '5 parsecs' is not a duration; write it like 90s, 5m, 24h or 1d12h",
    ),
    wrong(
        "number without unit",
        HELLO.replace("5m", "24"),
        "wrong.yaml: resources.time: 24 is not a duration; write 24s, 24m or 24h",
    ),
    wrong(
        "memory without unit",
        HELLO.replace("nodes: 1", "memory: 6"),
        "wrong.yaml: resources.memory: 6 has no unit; write 6GB or 6MB",
    ),
    wrong(
        "two mistakes at once",
        HELLO.replace("lead: 30s", "lead: soon\nproyect: me"),
        "wrong.yaml: lead: 'soon' is not a duration; write it like 90s, 5m, 24h or 1d12h",
        "wrong.yaml: proyect: unknown key; write project",
    ),
    wrong(
        "bad YAML", HELLO + "env: {A: [1}\n", "wrong.yaml: line 6: is not YAML: did not find expected ',' or ']'"
    ),
    wrong("no mapping", "- kind: x\n", "wrong.yaml: is not a mapping; write keys and values, e.g. kind: pretrain"),
    wrong("missing base", "extends: no.yaml\n", "wrong.yaml: extends: no.yaml is no file beside wrong.yaml"),
    wrong(
        "unknown kind",
        HELLO.replace("command\n", "comand\n", 1),
        "wrong.yaml: kind: 'comand' is no kind of work; write command",
    ),
    wrong(
        "no kind", HELLO.replace("kind: command\n", ""), 
        "wrong.yaml: kind: is missing; write one of command, curate, evaluate, export, preference, pretrain, regmix, "
        "rl, sft, sweep",
    ),
    wrong(
        "unknown model", TRAIN.replace("tiny", "tinny"), "wrong.yaml: model: 'tinny' is no known model; write tiny"
    ),
    wrong(
        "bad name",
        HELLO.replace("name: hello", "name: My Run!"),
        "wrong.yaml: name: 'My Run!' has other characters than a-z, 0-9 and '-', or is too long; write my-run",
    ),
    wrong(
        "command as text",
        HELLO.replace("[echo, hi]", "echo hi"),
        "wrong.yaml: command: 'echo hi' is text; write a list: [echo, hi]",
    ),
    wrong(
        "two stages",
        TRAIN + "  - {name: only, tokens: 80k, seq_len: 256, global_batch: 1k, lr: {peak: 3e-3}}\n",
        "wrong.yaml: stages: 'only' is the name of two; write another for one of them",
    ),
    wrong(
        "protected variable",
        HELLO + "env: {SLURM_PROCID: 4}\n",
        "wrong.yaml: env: SLURM_PROCID is set by SLURM and xgen for each attempt; remove it",
    ),
    wrong(
        "secret in env",
        HELLO + "env: {HF_TOKEN: abc}\n",
        "wrong.yaml: env: HF_TOKEN looks like a secret, and env is printed and stored; "
        "write secrets: {HF_TOKEN: {env: HF_TOKEN}}",
    ),
    wrong(
        "bad name of a variable",
        HELLO + "env: {'a b': c}\n",
        "wrong.yaml: env: 'a b' is no name of a variable; write letters, digits and '_'",
    ),
    wrong(
        "secret that is not set",
        HELLO + "secrets: {HF_TOKEN: {env: NO_SUCH_VARIABLE}}\n",
        "secrets.HF_TOKEN.env: NO_SUCH_VARIABLE is not set here; write export NO_SUCH_VARIABLE=… first",
    ),
    # Sense: keys that do not fit together, or not on this cluster.
    setting(
        "unknown partition",
        "hello",
        "resources.partition=preemt",
        "--set: resources.partition: 'preemt' is not in the cluster profile; write preempt",
    ),
    setting(
        "time over the partition's limit",
        "hello",
        "resources.time=2h",
        "--set: resources.time: 2h is over the partition's limit; "
        "write 1h or less: the run goes on in the next attempt",
    ),
    setting(
        "lead longer than time",
        "hello",
        "lead=6m",
        "--set: lead: 6m leaves nothing of the time limit 5m; write less",
    ),
    setting(
        "lead too short",
        "train",
        "lead=3s",
        "--set: lead: 3s is too short: to stop takes 9s (two steps, two saves, the margin); write 9s or more",
    ),
    setting(
        "grace too short",
        "train",
        "resources.partition=hasty",
        "--set: resources.partition: its grace of 2s is too short: to stop takes 9s (two steps, two saves, the "
        "margin); write gpu or preempt",
    ),
    setting(
        "ranks that do not divide the batch",
        "train",
        "resources.nodes=3",
        "{at}/train.yaml: stages[0].global_batch: 4 sequences do not divide over 6 ranks with micro_batch 1; "
        "write a multiple of 1536 tokens",
    ),
    setting(
        "batch that is no whole number of sequences",
        "train",
        "stages.0.global_batch=1000",
        "--set: stages[0].global_batch: 1000 tokens are no whole number of sequences of 256; write 1024",
    ),
    setting(
        "parallelism that is not the ranks",
        "train",
        "stages.0.parallelism={fsdp: 4, replicate: 2}",
        "--set: stages[0].parallelism: fsdp 4 x replicate 2 is not 4, the ranks of 2 nodes x 2 GPUs; write fsdp: 2",
    ),
    setting(
        "warm-up longer than the stage",
        "train",
        "stages.0.lr.warmup=1000",
        "--set: stages[0].lr.warmup: 1000 steps are more than the stage's 79; write fewer",
    ),
    setting(
        "missing store",
        "train",
        "data.store=nowhere",
        "--set: data.store: {at}/nowhere is no token store; "
        "write `xgen data build {at}/nowhere --input …` first",
    ),
    setting(
        "missing mount",
        "hello",
        "container.mounts=[/no/such/folder]",
        "--set: container.mounts[0]: /no/such/folder does not exist; write an existing folder",
    ),
    call(
        "no image where images run",
        "hello.yaml: container.image: is missing, and charliecloud runs here; write a name or a path",
        cluster="boxed",
    ),
    call(
        "missing image",
        "--set: container.image: 'trainer' is not there as {at}/images/trainer; "
        "write `xgen image build` or `xgen image import SOURCE --name trainer`",
        "--set",
        "container.image=trainer",
        cluster="boxed",
    ),
    # Calls.
    call("missing spec", "no.yaml: no such file", spec="no.yaml"),
    call("set without =", "--set: resources.nodes: is not KEY=VALUE; write e.g. --set resources.nodes=4",
         "--set", "resources.nodes"),
    call("bad id", "--id: 'K3F' is not six lower case letters or digits; write e.g. --id k3f9ab", "--id", "K3F"),
    call("unknown cluster", "--cluster: 'moon' is no known cluster; known: {known}", cluster="moon"),
    call(
        "no cluster",
        "cluster: none named; write --cluster NAME or set XGEN_CLUSTER: {known}",
        cluster=None,
    ),
    call("missing profile", "--cluster: ./no is no file; write the path of a cluster profile", cluster="./no"),
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    done: CompletedProcess[str]
    expected: list[str]
    left: set[str]  # files that were not there before


def submit(mistake: Mistake, project: Project) -> Answer:
    if mistake.text is not None:
        (project.path / "wrong.yaml").write_text(mistake.text)
    before = project.files()
    cluster = ["--cluster", mistake.cluster] if mistake.cluster else []
    settings = [part for change in mistake.settings for part in ("--set", change)]
    done = project.xgen("submit", mistake.spec, *cluster, *settings, *mistake.options)
    expected = list(mistake.said)
    facts = {"{at}/train.yaml": "train.yaml", "{at}": str(project.path), "{known}": project.known_clusters()}
    for word, fact in facts.items():
        expected = [line.replace(word, fact) for line in expected]
    return Answer(done, expected, project.files() - before)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """All of them at once, each in a process and a project of its own."""
    projects = [make_project(tmp_path_factory.mktemp("mistake")) for _ in MISTAKES]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(max_workers=4) as pool:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("XGEN_CLUSTER", raising=False)
        found = list(pool.map(submit, MISTAKES, projects))
    return {mistake.name: answer for mistake, answer in zip(MISTAKES, found, strict=True)}


@pytest.mark.parametrize("name", [mistake.name for mistake in MISTAKES])
def test_a_mistake_is_one_line_with_file_key_value_and_fix(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]
    assert answer.done.stderr.splitlines() == answer.expected
    assert (answer.done.returncode, answer.done.stdout) == (2, "")
    assert answer.left == set()  # neither a run nor a trace of one


def test_there_are_more_than_twenty_of_them_each_with_a_name() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) > 20


def test_a_profile_with_a_typo_is_named_like_a_spec(project: Project) -> None:
    file = project.path / "slurm/clusters/local.yaml"
    file.write_text(file.read_text().replace("kill_wait: 10s", "kil_wait: 10"))
    done = project.xgen("submit", "hello.yaml", "--cluster", "local")
    assert done.stderr.splitlines() == [f"{file}: kil_wait: unknown key; write kill_wait"]
    assert done.returncode == 2


def test_the_same_id_is_not_submitted_twice(project: Project) -> None:
    (project.runs / "hello-abc123").mkdir(parents=True)
    before = project.files()
    (project.runs / "hello-abc123/spec.yaml").write_text(HELLO)
    done = project.xgen("submit", "hello.yaml", "--cluster", "local", "--id", "abc123")
    assert done.stderr.splitlines() == [
        "--id: hello-abc123 exists; write `xgen status hello-abc123`, or another id",
    ]
    assert done.returncode == 2
    assert project.files() == before | {"runs/hello-abc123/spec.yaml"}


def test_a_run_directory_that_cannot_be_written_is_not_left_behind(project: Project) -> None:
    """The limit on the size of a file stands for a disk that is full."""
    before = project.files()
    submit = "submit hello.yaml --cluster local --id abc123"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; exec {sys.executable} -m xgen.cli.main {submit}"],
        cwd=project.path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr.splitlines() == [
        f"{project.runs / 'hello-abc123'}: File too large; nothing was submitted; make room, "
        "or write another run_root in the profile"
    ]
    assert done.returncode == 1
    assert project.files() - {"runs"} == before


def test_a_mistake_in_a_run_s_name_lists_what_there_is(project: Project) -> None:
    for name in ("hello-aaaaaa", "hello-bbbbbb"):
        (project.runs / name).mkdir(parents=True)
        (project.runs / name / "spec.yaml").write_text(HELLO)
    done = project.xgen("status", "help", "--cluster", "local")
    assert done.stderr == f"no run help in {project.runs}; the newest are: hello-aaaaaa, hello-bbbbbb\n"
    assert done.returncode == 2
    done = project.xgen("cancel", "hello", "--cluster", "local")
    assert done.stderr == "hello is the beginning of 2 runs; write one of hello-aaaaaa, hello-bbbbbb\n"
    done = project.xgen("show", "", "--cluster", "local")
    assert done.stderr == f"no run '' in {project.runs}; the newest are: hello-aaaaaa, hello-bbbbbb\n"


def test_a_name_without_its_last_characters_is_that_run_and_no_other_that_begins_so(project: Project) -> None:
    for name in ("diamond-aaaaaa", "diamond-a-aaaaaa", "diamond-b-aaaaaa"):
        (project.runs / name).mkdir(parents=True)
        (project.runs / name / "spec.yaml").write_text(HELLO)
    done = project.xgen("logs", "diamond", "--cluster", "local")
    assert done.stderr == "diamond-aaaaaa has not started; write xgen status diamond-aaaaaa\n"
    assert done.returncode == 2


def test_a_path_that_the_system_gave_as_bytes_is_said_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(PermissionError(13, "Permission denied", b"/srv/root"))
    assert capsys.readouterr().err == "/srv/root: Permission denied\n"
