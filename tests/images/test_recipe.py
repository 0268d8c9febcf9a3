"""A recipe is read, identified and turned into commands; nothing is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.images import made
from xgen.images import build
from xgen.images.build import choose_tool, identify_recipe, make_plan, step_of
from xgen.images.errors import ImageError
from xgen.images.recipe import find_recipe, parse_args, parse_dockerfile
from xgen.images.resolve import image_id
from xgen.spec.errors import SpecError


def key_of(recipe: Path, *args: str) -> str:
    found = find_recipe(str(recipe), recipe)
    return identify_recipe(found, parse_args(found, args), "auto")[0]


def test_the_bases_are_what_the_arguments_make_of_them_without_stages() -> None:
    text = """\
        # FROM comment:1
        ARG VERSION=1
        ARG BASE="registry/base:${VERSION:-2}"
        FROM --platform=linux/amd64 ${BASE} AS first
        ARG INNER=3
        RUN a \\
          FROM-is-no-instruction
        FROM scratch
        FROM first AS second
        FROM $BASE
        """
    found = parse_dockerfile(text)
    assert found.bases({"BASE": "mine:4"}) == ["mine:4"]
    assert found.base_args() == {"BASE"}
    assert found.args == {"VERSION", "BASE", "INNER"}
    assert parse_dockerfile("ARG V=1\nFROM a/b:${V:-2}").bases({}) == ["a/b:1"]
    assert parse_dockerfile("ARG V\nFROM a/b:${V:-2}").bases({}) == ["a/b:2"]


def test_a_recipe_is_found_by_name_and_by_folder(recipe: Path) -> None:
    assert find_recipe("tiny", recipe.parents[1]).folder == recipe
    assert find_recipe("./tiny", recipe.parent).folder == recipe
    assert find_recipe(".", recipe).name == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "RECIPE: none named; write a folder with a Dockerfile, or one of tiny"),
        ("tinny", "docker/tinny/Dockerfile is not there; write a folder with a Dockerfile, or one of tiny"),
    ],
)
def test_an_unknown_recipe_is_answered_with_those_there_are(text: str | None, message: str, recipe: Path) -> None:
    with pytest.raises(SpecError) as caught:
        find_recipe(text, recipe.parents[1])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("GREETING", "'GREETING' is no KEY=VALUE; write e.g. --arg WITH_TORCH=1"),
        ("GREETINGS=x", "GREETINGS is no ARG of"),
        ("HF_TOKEN=x", "HF_TOKEN would stay in the image's history; mount secrets into a job"),
        ("BASE=gone.tar", "BASE=gone.tar is not there; write a docker archive, or REGISTRY/NAME:TAG"),
    ],
)
def test_a_wrong_argument_says_what_to_write(pair: str, message: str, recipe: Path) -> None:
    with pytest.raises(SpecError) as caught:
        key_of(recipe, pair)
    assert message in str(caught.value)
    assert "HF_TOKEN=x" not in str(caught.value)


def test_an_archive_that_is_no_image_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(SpecError, match="no docker archive"):
        key_of(recipe, f"BASE={tmp_path}/x.tar")


def test_the_key_follows_every_file_every_argument_and_the_base_but_no_name(recipe: Path, base: Path) -> None:
    seen = [key_of(recipe), key_of(recipe, "GREETING=x"), key_of(recipe, "GREETING=y"), key_of(recipe, f"BASE={base}")]
    made.base_archive(base, mark=b"other")
    seen.append(key_of(recipe, f"BASE={base}"))
    moved = base.rename(base.with_name("moved.tar"))
    assert key_of(recipe, f"BASE={moved}") == seen[-1]
    assert key_of(recipe, "GREETING=x") == seen[1]
    (recipe / "motd").write_text("second\n")
    seen.append(key_of(recipe))
    (recipe / "motd").chmod(0o755)
    seen.append(key_of(recipe))
    (recipe / "new").touch()
    seen.append(key_of(recipe))
    assert len(set(seen)) == len(seen)


# Tools


def test_the_commands_of_every_tool(recipe: Path, base: Path) -> None:
    found = find_recipe("tiny", recipe.parents[1])
    args = {"BASE": str(base), "GREETING": "it's me"}
    key, ids = identify_recipe(found, args, "auto")
    short, base_short = key[7:19], image_id(base)[7:19]
    for tool in build.TOOLS:
        plan = make_plan(found, args, "Tiny", key, ids, tool, network="host", labels={"a": "b"})
        *load, made_by, imports = [" ".join(argv) for argv in plan.commands(Path("/images"), ["sqsh"])]
        kind = "" if tool == "docker" else "--isolation=chroot --format=docker --layers "
        assert made_by == (
            f"{tool} build {kind}--network=host --tag=localhost/xgen-tiny:{short} "
            f"--build-arg=BASE=localhost/xgen-base:{base_short} --build-arg=GREETING=it's me "
            f"--label=a=b --label=xgen.recipe={key} --file={recipe}/Dockerfile {recipe}"
        )
        assert load[0] == (
            f"buildah pull --quiet docker-archive:{base}"
            if tool == "buildah"
            else f"{tool} load --quiet --input={base}"
        )
        assert load[1] == f"{tool} tag {ids['BASE'][7:]} localhost/xgen-base:{base_short}"
        where = {"docker": "docker-daemon", "podman": "podman", "buildah": "containers-storage"}[tool]
        assert imports == (
            f"xgen image import {where}:localhost/xgen-tiny:{short} --name Tiny --format sqsh --image-dir /images"
        )


def test_without_a_tool_the_error_names_those_that_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="no docker that answers, no podman and no buildah"):
        choose_tool("auto")
    with pytest.raises(ImageError, match="--tool podman: it is not installed"):
        choose_tool("podman")
    with pytest.raises(SpecError, match="'kaniko' is not known; write auto, docker, podman, buildah"):
        choose_tool("kaniko")


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("STEP 3/9: RUN set -eu;   echo", "3/9 RUN set -eu; echo"),  # buildah, podman
        ("[2/2] STEP 3/9: COPY a b", "3/9 COPY a b"),
        ("Step 3/9 : FROM debian:12", "3/9 FROM debian:12"),  # docker's classic builder
        ("#7 [packages 2/5] RUN apt-get update", "2/5 RUN apt-get update"),  # BuildKit
        ("#7 [2/5] RUN apt-get update", "2/5 RUN apt-get update"),
        ("STEP 3/9: LABEL a=b", ""),
        ("Collecting torch", ""),
        ("STEP 1/1: RUN " + "x" * 200, "1/1 RUN " + "x" * 85 + "…"),
    ],
)
def test_the_steps_of_every_builder_are_read(line: str, step: str) -> None:
    assert step_of(line) == step


def test_a_dry_run_prints_the_commands_and_makes_nothing(recipe: Path, base: Path, images: Path) -> None:
    if not any(build._usable(tool) for tool in build.TOOLS):
        pytest.skip("no tool here")
    code, out, err = made.finish(
        made.xgen_build(
            "tiny", "--arg", f"BASE={base}", "--format", "sqsh", "--image-dir", images, "--dry-run", cwd=recipe
        )
    )
    assert code == 0, err
    lines = out.splitlines()
    assert "base.tar" in lines[0] and " build " in lines[2] and lines[3].startswith("xgen image import ")
    assert not images.exists()


def test_the_commit_of_a_recipe_is_marked_where_the_recipe_was_changed(recipe: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(
            ["git", "-C", str(recipe), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    name = "org.opencontainers.image.revision"
    assert name not in build.built_labels(recipe, 0)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=x")
    (recipe.parents[1] / "elsewhere").write_text("not in the image")
    assert build.built_labels(recipe, 0) == {
        name: git("rev-parse", "HEAD"),
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
    }
    (recipe / "motd").write_text("changed")
    assert build.built_labels(recipe, 0)[name] == git("rev-parse", "HEAD") + "+dirty"
