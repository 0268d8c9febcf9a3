"""A recipe becomes an image once: with each tool that is here, for every change, and never twice at a time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.images import made
from xgen.images import build
from xgen.images.archive import write_archive
from xgen.images.build import Tool, build_image, choose_tool, identify_recipe, make_plan, step_of
from xgen.images.config import ImageConfig
from xgen.images.errors import ImageError
from xgen.images.progress import Silent
from xgen.images.recipe import find_recipe, parse_args, parse_dockerfile
from xgen.images.record import STORE, read_record
from xgen.images.resolve import image_id
from xgen.images.store import remove_tree
from xgen.images.tools import answers
from xgen.spec.errors import SpecError

TINY = """\
ARG BASE=docker.io/library/nothing:1
FROM ${BASE}
ARG GREETING=hello
COPY motd /etc/motd
RUN echo "$GREETING" >/etc/greeting
LABEL org.opencontainers.image.title="tiny"
"""


def base_archive(path: Path, mark: bytes = b"") -> None:
    """With a history: buildah 1.28 adds no layer to an image that has none."""
    files = path.with_suffix(".layer")
    files.write_bytes(made.layers()[0])
    write_archive(
        files, path, ImageConfig(env={"PATH": "/bin", "MARK": mark.decode()}), "localhost/xgen-tiny:0", lambda _: None
    )
    files.unlink()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that takes a second to build, in a checkout of its own, and its base."""
    folder = tmp_path / "checkout" / "docker" / "tiny"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(TINY)
    (folder / "motd").write_text("first\n")
    (folder.parents[1] / "pyproject.toml").write_text("")
    base_archive(folder.parents[1] / "base.tar")
    return folder


@pytest.fixture
def base(recipe: Path) -> Path:
    return recipe.parents[1] / "base.tar"


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "images"
    remove_tree(tmp_path / "images")


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A storage of our own for podman and buildah, and limits that a container without privileges may set."""
    settings(tmp_path, "vfs", monkeypatch)
    yield
    remove_tree(tmp_path / "graph")
    if answers(build.commands.DOCKER_ANSWERS):  # whose storage is the machine's
        listed = subprocess.run(
            ["docker", "images", "--quiet", "localhost/xgen-tiny"], capture_output=True, text=True, timeout=60
        )
        subprocess.run(["docker", "rmi", "--force", *listed.stdout.split()], capture_output=True, timeout=60)


def settings(folder: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "host"\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
    monkeypatch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))


def fast_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays where they work, here or in a container: vfs copies the whole image for each step."""
    settings(folder, "overlay", monkeypatch)
    if subprocess.run(["buildah", "info"], capture_output=True, timeout=60).returncode != 0:
        settings(folder, "vfs", monkeypatch)


def xgen_build(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xgen.cli.main", "image", "build", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def usable(tool: Tool) -> pytest.MarkDecorator:
    there = shutil.which(tool) is not None and (tool != "docker" or answers(build.commands.DOCKER_ANSWERS))
    return pytest.mark.skipif(not there, reason=f"{tool} is not usable here")


each_tool = pytest.mark.parametrize("tool", [pytest.param(tool, marks=usable(tool)) for tool in build.TOOLS])
needs_buildah = made.needs("buildah", "skopeo", "umoci")
as_root = pytest.mark.skipif(os.geteuid() != 0 or not made.runnable(), reason="needs root and busybox")


def key_of(recipe: Path, *args: str) -> str:
    found = find_recipe(str(recipe), recipe)
    return identify_recipe(found, parse_args(found, args), "auto")[0]


# Reading recipes


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
    base_archive(base, mark=b"other")
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


# Real builds


@as_root
@each_tool
def test_a_recipe_is_built_once_and_again_when_it_changed(
    tool: Tool, recipe: Path, base: Path, images: Path, containers: None
) -> None:
    options = (
        "tiny", "--arg", f"BASE={base}", "--tool", tool, "--network", "host", "--format", "folder",
        "--image-dir", images, "--json",
    )  # fmt: skip
    code, out, err = finish(xgen_build(*options, cwd=recipe))
    assert code == 0, err
    first = json.loads(out)
    assert first["built"] and " COPY motd /etc/motd\n" in err
    assert (images / "tiny/etc/motd").read_text() == "first\n"
    assert (images / "tiny/etc/greeting").read_text() == "hello\n"
    record = read_record(images / "tiny")
    assert record is not None
    assert record.labels["xgen.recipe"] == first["key"]
    assert record.labels["org.opencontainers.image.title"] == "tiny"
    assert record.labels["org.opencontainers.image.created"].endswith("Z")

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, err = finish(xgen_build(*options, cwd=recipe))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    again = json.loads(out)
    assert (code, err, again["built"], again["imported"]) == (0, "", False, [])
    assert again["image"]["digest"] == first["image"]["digest"]

    (recipe / "motd").write_text("second\n")
    code, out, err = finish(xgen_build(*options, cwd=recipe))
    assert code == 0, err
    assert json.loads(out)["built"]
    assert (images / "tiny/etc/motd").read_text() == "second\n"
    assert not list((images / STORE / "building").glob("*.log"))


@as_root
@needs_buildah
def test_another_name_or_format_of_a_built_recipe_is_made_of_the_image_that_is_there(
    recipe: Path, base: Path, images: Path, containers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_recipe("tiny", recipe.parents[1])
    args = {"BASE": str(base)}
    build_image(found, args, "tiny", images, ["folder"], Silent(), tool="buildah")
    monkeypatch.setattr(build, "choose_tool", lambda _: pytest.fail("a tool was asked"))
    done = build_image(found, args, "other", images, ["folder", "tar"], Silent())
    assert not done.built
    assert done.imported.made == ("tar",)
    assert (images / "other").resolve() == (images / "tiny").resolve()


@as_root
@needs_buildah
def test_two_at_once_build_once(recipe: Path, base: Path, images: Path, containers: None) -> None:
    (recipe / "Dockerfile").write_text(TINY + "RUN sleep 2\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    both = [xgen_build(*options, "--json", cwd=recipe) for _ in range(2)]
    ended = [finish(process) for process in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sorted(json.loads(out)["built"] for _, out, _ in ended) == [False, True]
    assert any("waiting" in err for _, _, err in ended)


@as_root
@needs_buildah
def test_a_failed_build_shows_its_end_keeps_its_log_and_leaves_no_image(
    recipe: Path, base: Path, images: Path, containers: None
) -> None:
    (recipe / "Dockerfile").write_text(TINY + "RUN echo the reason; exit 3\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    code, out, err = finish(xgen_build(*options, cwd=recipe))
    assert (code, out) == (1, "")
    assert "buildah build failed" in err and "the reason" in err and "Traceback" not in err
    (log,) = (images / STORE / "building").glob("*.log")
    assert str(log) in err and "the reason" in log.read_text()
    assert not (images / "tiny").exists()


@as_root
@needs_buildah
def test_a_build_that_hangs_is_ended(recipe: Path, base: Path, images: Path, containers: None) -> None:
    (recipe / "Dockerfile").write_text(TINY + "RUN exec sleep 4711\n")
    found = find_recipe("tiny", recipe.parents[1])
    with pytest.raises(ImageError, match="did not end within 4 s"):
        build_image(found, {"BASE": str(base)}, "tiny", images, ["folder"], Silent(), tool="buildah", timeout=4)
    end = time.monotonic() + 10
    while subprocess.run(["pgrep", "--full", "sleep 4711"], capture_output=True).stdout:
        assert time.monotonic() < end, "what the build started outlives it"
        time.sleep(0.1)


@as_root
@needs_buildah
def test_after_a_build_that_was_killed_the_next_one_builds(
    recipe: Path, base: Path, images: Path, containers: None
) -> None:
    (recipe / "Dockerfile").write_text(TINY + "RUN sleep 30\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    killed = xgen_build(*options, cwd=recipe)
    end = time.monotonic() + 30
    while not any("sleep 30" in log.read_text() for log in (images / STORE / "building").glob("*.log")):
        assert time.monotonic() < end, killed.poll()
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    (recipe / "Dockerfile").write_text(TINY)
    code, _, err = finish(xgen_build(*options, cwd=recipe))
    assert code == 0, err
    assert (images / "tiny/etc/motd").is_file()


def test_a_dry_run_prints_the_commands_and_makes_nothing(recipe: Path, base: Path, images: Path) -> None:
    if not any(build._usable(tool) for tool in build.TOOLS):
        pytest.skip("no tool here")
    code, out, err = finish(
        xgen_build("tiny", "--arg", f"BASE={base}", "--format", "sqsh", "--image-dir", images, "--dry-run", cwd=recipe)
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


# The recipe `cpu`


@pytest.fixture(scope="module")
def debian_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What docker/debian-base makes, of a copy of the folder that `make setup` has made."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root and mmdebstrap")
    folder = tmp_path_factory.mktemp("base")
    if (ROOT / ".cache/debian").is_dir():
        copy = ["cp", "--archive", "--reflink=auto", ROOT / ".cache/debian", folder / "debian"]
        subprocess.run(copy, check=True, timeout=120)
    make_base(folder / "debian.tar")
    yield folder / "debian.tar"
    remove_tree(folder)


def make_base(target: Path, python: Path = Path(sys.executable)) -> str:
    """Standard output of docker/debian-base."""
    command = [ROOT / "docker/debian-base", target, python]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_buildah
def test_the_cpu_recipe_is_built_without_a_network_and_holds_what_it_says(
    debian_base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_settings(tmp_path, monkeypatch)
    try:
        found = find_recipe("cpu", ROOT)
        done = build_image(found, {"BASE": str(debian_base)}, "cpu", images, ["folder"], Silent(), tool="buildah")
    finally:
        subprocess.run(["buildah", "rm", "--all"], capture_output=True, timeout=60)
        remove_tree(tmp_path / "graph")
    inside = images / "cpu"
    assert json.loads((inside / "etc/xgen/image.json").read_text())["python"].startswith("3.11.")
    assert (inside / "etc/xgen/requirements.lock").read_bytes() == (found.folder / "requirements.lock").read_bytes()
    assert "xgen:x:10001:" in (inside / "etc/passwd").read_text()
    labels = done.imported.record.labels
    assert {name for name in labels if name.startswith("org.opencontainers.image.")} >= {
        f"org.opencontainers.image.{name}" for name in ("title", "version", "source", "base.name", "created")
    }
    assert labels["org.opencontainers.image.base.name"] == f"localhost/xgen-base:{image_id(debian_base)[7:19]}"


@pytest.mark.slow  # fetches torch: 3 GB
@needs_buildah
def test_the_cpu_recipe_with_torch_is_what_training_needs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's own Python, as debian:12-slim gives it; needs PyPI and its certificates."""
    fast_settings(tmp_path, monkeypatch)
    base, python = tmp_path / "base.tar", Path("/usr/bin/python3")
    subprocess.run([ROOT / "docker/build-dev-image", tmp_path / "base", python], check=True, timeout=600)
    trusted = Path("/usr/local/share/ca-certificates")  # of a proxy on the way to PyPI
    shutil.copytree(trusted, tmp_path / "base" / trusted.relative_to("/"), dirs_exist_ok=True)
    make_base(base, python)
    try:
        args = {"BASE": str(base), "WITH_TORCH": "1"}
        build_image(find_recipe("cpu", ROOT), args, "cpu", images, ["folder"], Silent(), tool="buildah", network="host")
    finally:
        remove_tree(tmp_path / "graph")
    inside = json.loads((images / "cpu/etc/xgen/image.json").read_text())["packages"]
    assert inside["torch"].startswith("2.15.") and inside["torchtitan"] == "0.3.0"


def test_a_debian_base_is_made_once(debian_base: Path) -> None:
    before = debian_base.stat()
    assert make_base(debian_base) == ""
    assert debian_base.stat().st_ino == before.st_ino
