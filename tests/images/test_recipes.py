"""What the recipes in docker/ must hold, also those that need a registry or a GPU to build; and that the locks fit."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.images.made import needs
from xgen.images import check
from xgen.images.recipe import Dockerfile, instructions, parse_dockerfile
from xgen.spec.image import parse_reference

DOCKER = ROOT / "docker"
RECIPES = sorted(file.parent.name for file in DOCKER.glob("*/Dockerfile"))
LOCKS = sorted(str(file.relative_to(DOCKER)) for file in DOCKER.glob("*/*.lock"))
LABELS = ("title", "version", "source", "base.name")  # the build adds revision and created
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)$")


def text_of(recipe: str) -> str:
    return (DOCKER / recipe / "Dockerfile").read_text(encoding="utf-8")


def dockerfile(recipe: str) -> Dockerfile:
    return parse_dockerfile(text_of(recipe))


def pins(lock: str) -> dict[str, str]:
    return dict(_PIN.findall((DOCKER / lock).read_text(encoding="utf-8")))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition(".post")[0]))


def satisfies(version: str, clauses: str) -> bool:
    """The clauses that our requirements use: >=, <, ==, ~=."""
    for clause in filter(None, (c.strip() for c in clauses.split(","))):
        match = re.fullmatch(r"(>=|<|==|~=)\s*([\d.]+)", clause)
        assert match is not None, f"{clause}: teach this test to read it"
        have, want = numbers(version), numbers(match[2])
        width = max(len(have), len(want))
        have_w, want_w = (v + (0,) * (width - len(v)) for v in (have, want))
        good = {
            ">=": have_w >= want_w,
            "<": have_w < want_w,
            "==": have_w == want_w,
            "~=": have_w >= want_w and have[: len(want) - 1] == want[:-1],
        }[match[1]]
        if not good:
            return False
    return True


def requirements(lines: list[str]) -> list[tuple[str, str]]:
    found = []
    for line in lines:
        bare = line.partition("#")[0].strip()
        if bare:
            match = _REQUIREMENT.match(bare)
            assert match is not None, line
            found.append((match[1].lower().replace("_", "-"), match[2]))
    return found


def missing(wanted: list[tuple[str, str]], locked: dict[str, str]) -> list[str]:
    return [f"{name}{spec}: {locked.get(name)}" for name, spec in wanted if not satisfies(locked.get(name, "0"), spec)]


def project() -> dict[str, list[str]]:
    """The requirements of pyproject.toml: '' for its own, else by extra."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def test_there_are_the_three_recipes_and_the_apptainer_file() -> None:
    assert RECIPES == ["cpu", "rollout", "trainer"]
    assert (DOCKER / "apptainer/trainer.def").is_file()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_base_is_an_argument_with_a_registry_and_a_tag_that_says_a_version(recipe: str) -> None:
    for base in dockerfile(recipe).bases({}):
        reference = parse_reference(base)
        assert base.startswith(f"{reference.registry}/")
        assert re.search(r"\d", reference.tag), base
        assert "latest" not in base
    named = {line.image for line in dockerfile(recipe).froms}
    assert all(image.startswith("${") for image in named)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_image_ends_as_a_user_who_is_not_root(recipe: str) -> None:
    users = [rest for verb, rest in instructions(text_of(recipe)) if verb == "USER"]
    assert users[-1] not in ("root", "0", "0:0")
    assert f"--uid 10001 {users[-1]}" in text_of(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_last_stage_has_the_labels_that_no_build_can_know(recipe: str) -> None:
    last = instructions(text_of(recipe).rpartition("\nFROM ")[2])
    labels = " ".join(rest for verb, rest in last if verb == "LABEL")
    assert [name for name in LABELS if f"org.opencontainers.image.{name}=" not in labels] == []
    assert 'base.name="${BASE}"' in labels
    assert ("ARG", "BASE") in last  # else the label is empty


@pytest.mark.parametrize(("recipe", "package"), [("trainer", "torch"), ("rollout", "vllm")], ids=str)
def test_the_version_label_is_the_locked_version(recipe: str, package: str) -> None:
    assert f'version="{pins(f"{recipe}/requirements.lock")[package]}"' in text_of(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_lock_and_the_versions_are_in_the_image(recipe: str) -> None:
    last = text_of(recipe).rpartition("\nFROM ")[2]
    assert re.search(r"^COPY .*requirements\.lock.* /etc/xgen/", last, re.MULTILINE)
    assert ">/etc/xgen/image.json" in last


@pytest.mark.parametrize("recipe", RECIPES)
def test_packages_come_from_the_lock_with_hashes_and_lists_of_apt_do_not_stay(recipe: str) -> None:
    for verb, rest in instructions(text_of(recipe)):
        if verb != "RUN":
            continue
        for install in re.findall(r"pip install[^;]*", rest):
            assert "--require-hashes" in install and "--no-deps" in install, install
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "apt-get update" in rest and "rm -rf /var/lib/apt/lists/*" in rest
        assert "sudo" not in rest.split()
        assert not re.search(r"\| *(ba)?sh\b", rest)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_secret_no_scheduler_and_no_code_of_ours_is_in_the_image(recipe: str) -> None:
    text = text_of(recipe)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"(ARG|ENV)\s+\S*(TOKEN|SECRET|PASSWORD|API_?KEY)", code, re.IGNORECASE)
    assert not re.search(r"slurm|munge", code, re.IGNORECASE)
    copied = [rest for verb, rest in instructions(text) if verb in ("COPY", "ADD")]
    assert all(rest.startswith("--from=") or re.fullmatch(r"(\S+\.lock )+/etc/xgen/\S*", rest) for rest in copied)
    assert not any(verb == "ADD" for verb, _ in instructions(text))


@needs("shellcheck")
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_run_is_clean_shell_that_stops_at_its_first_error(recipe: str, tmp_path: Path) -> None:
    scripts = [rest for verb, rest in instructions(text_of(recipe)) if verb == "RUN"]
    for number, script in enumerate(scripts):
        assert script.startswith("set -eu;") or ";" not in script, script
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/bin/sh\n{script}\n")
        # Variables come from ARG; a list of packages is split on purpose.
        told = subprocess.run(
            ["shellcheck", "--exclude=SC2086,SC2154", str(file)], capture_output=True, text=True, timeout=60
        )
        assert told.returncode == 0, told.stdout


def test_the_apptainer_file_reads_the_locks_of_the_trainer_and_has_its_parts() -> None:
    text = (DOCKER / "apptainer/trainer.def").read_text(encoding="utf-8")
    assert re.findall(r"^(%\w+)", text, re.MULTILINE) == [
        "%arguments", "%files", "%post", "%environment", "%test", "%labels",
    ]  # fmt: skip
    for lock in re.findall(r"docker/trainer/\S+\.lock", text):
        assert (ROOT / lock).is_file()
    declared = set(re.findall(r"^    (\w+)=", text.partition("%arguments")[2].partition("%files")[0], re.MULTILINE))
    assert set(re.findall(r"\{\{ (\w+) \}\}", text)) == declared
    bases = re.findall(r"nvidia/cuda:[\w.-]+", text)
    assert bases and all(f"docker.io/{base}" in text_of("trainer") for base in bases)


@needs("shellcheck")
def test_the_scripts_of_the_apptainer_file_are_clean_shell(tmp_path: Path) -> None:
    text = (DOCKER / "apptainer/trainer.def").read_text(encoding="utf-8")
    script = text.partition("%post\n")[2].partition("%environment")[0].replace("{{ ", "").replace(" }}", "")
    (tmp_path / "post.sh").write_text(f"#!/bin/sh\n{script}")
    told = subprocess.run(["shellcheck", str(tmp_path / "post.sh")], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    text = (DOCKER / lock).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text.partition("docker/lock\n")[2])
    assert len(blocks) == len(pins(lock)) > 0
    assert [block.partition(" ")[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("source", sorted(str(f.relative_to(DOCKER)) for f in DOCKER.glob("*/*.in")))
def test_every_requirement_is_satisfied_by_its_lock(source: str) -> None:
    wanted = requirements((DOCKER / source).read_text(encoding="utf-8").splitlines())
    assert wanted
    assert missing(wanted, pins(source.removesuffix(".in") + ".lock")) == []


@pytest.mark.parametrize("lock", ["cpu/requirements.lock", "trainer/requirements.lock"])
def test_the_locks_hold_what_xgen_needs_to_train(lock: str) -> None:
    wanted = [line for extra in ("", "train", "hub", "rl") for line in project()[extra]]
    assert missing(requirements(wanted), pins(lock)) == [], "write docker/lock"


def test_flash_attn_is_the_one_of_pyproject() -> None:
    wanted = [line for line in project()["gpu"] if line.startswith("flash-attn")]
    assert missing(requirements(wanted), pins("trainer/flash-attn.lock")) == []


def test_the_cpu_and_the_trainer_run_the_same_versions() -> None:
    cpu, trainer = pins("cpu/requirements.lock"), pins("trainer/requirements.lock")
    assert {name: (cpu[name], trainer[name]) for name in cpu if cpu[name] != trainer.get(name)} == {}


def test_the_check_wants_the_versions_that_pyproject_wants() -> None:
    wanted = dict(requirements([*project()["train"]]))
    assert satisfies(f"{check.TORCH}.0", wanted["torch"]) and not satisfies("2.16.0", wanted["torch"])
    assert wanted["torchtitan"] == f"=={check.TORCHTITAN}"
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert table["requires-python"] == f">={'.'.join(map(str, check.PYTHON))}"


@pytest.mark.slow
@needs("uv")
def test_the_locks_resolve() -> None:
    done = subprocess.run([str(DOCKER / "lock"), "--check"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
