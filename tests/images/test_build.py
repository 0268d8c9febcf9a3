"""A recipe becomes an image once: with each tool, for every change, and never twice at a time."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.images import made
from xgen.images import build
from xgen.images.build import Tool, build_image
from xgen.images.errors import ImageError
from xgen.images.progress import Silent
from xgen.images.recipe import find_recipe
from xgen.images.record import STORE, read_record

each_tool = pytest.mark.parametrize("tool", [pytest.param(tool, marks=made.needs(tool)) for tool in build.TOOLS])
needs_buildah = made.needs("buildah", "skopeo", "umoci")


@made.as_root
@made.needs_busybox()
@each_tool
def test_a_recipe_is_built_once_and_again_when_it_changed(
    tool: Tool, recipe: Path, base: Path, images: Path, containers: Path, request: pytest.FixtureRequest
) -> None:
    if tool == "docker":
        request.getfixturevalue("dockerd")
    options = (
        "tiny", "--arg", f"BASE={base}", "--tool", tool, "--network", "host", "--format", "folder",
        "--image-dir", images, "--json",
    )  # fmt: skip
    code, out, err = made.finish(made.xgen_build(*options, cwd=recipe))
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
    code, out, err = made.finish(made.xgen_build(*options, cwd=recipe))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    again = json.loads(out)
    assert (code, err, again["built"], again["imported"]) == (0, "", False, [])
    assert again["image"]["digest"] == first["image"]["digest"]

    (recipe / "motd").write_text("second\n")
    code, out, err = made.finish(made.xgen_build(*options, cwd=recipe))
    assert code == 0, err
    assert json.loads(out)["built"]
    assert (images / "tiny/etc/motd").read_text() == "second\n"
    assert not list((images / STORE / "building").glob("*.log"))


@made.as_root
@made.needs_busybox()
@needs_buildah
def test_another_name_or_format_of_a_built_recipe_is_made_of_the_image_that_is_there(
    recipe: Path, base: Path, images: Path, containers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_recipe("tiny", recipe.parents[1])
    args = {"BASE": str(base)}
    build_image(found, args, "tiny", images, ["folder"], Silent(), tool="buildah")
    monkeypatch.setattr(build, "choose_tool", lambda _: pytest.fail("a tool was asked"))
    done = build_image(found, args, "other", images, ["folder", "tar"], Silent())
    assert not done.built
    assert done.imported.made == ("tar",)
    assert (images / "other").resolve() == (images / "tiny").resolve()


@made.as_root
@made.needs_busybox()
@needs_buildah
def test_two_at_once_build_once(recipe: Path, base: Path, images: Path, containers: Path) -> None:
    (recipe / "Dockerfile").write_text(made.TINY + "RUN sleep 2\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    both = [made.xgen_build(*options, "--json", cwd=recipe) for _ in range(2)]
    ended = [made.finish(process) for process in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sorted(json.loads(out)["built"] for _, out, _ in ended) == [False, True]
    assert any("waiting" in err for _, _, err in ended)


@made.as_root
@made.needs_busybox()
@needs_buildah
def test_a_failed_build_shows_its_end_keeps_its_log_and_leaves_no_image(
    recipe: Path, base: Path, images: Path, containers: Path
) -> None:
    (recipe / "Dockerfile").write_text(made.TINY + "RUN echo the reason; exit 3\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    code, out, err = made.finish(made.xgen_build(*options, cwd=recipe))
    assert (code, out) == (1, "")
    assert "buildah build failed" in err and "the reason" in err and "Traceback" not in err
    (log,) = (images / STORE / "building").glob("*.log")
    assert str(log) in err and "the reason" in log.read_text()
    assert not (images / "tiny").exists()


@made.as_root
@made.needs_busybox()
@needs_buildah
def test_a_build_that_hangs_is_ended(recipe: Path, base: Path, images: Path, containers: Path) -> None:
    (recipe / "Dockerfile").write_text(made.TINY + "RUN exec sleep 4711\n")
    found = find_recipe("tiny", recipe.parents[1])
    with pytest.raises(ImageError, match="did not end within 4 s"):
        build_image(found, {"BASE": str(base)}, "tiny", images, ["folder"], Silent(), tool="buildah", timeout=4)
    end = time.monotonic() + 10
    while subprocess.run(["pgrep", "--full", "sleep 4711"], capture_output=True).stdout:
        assert time.monotonic() < end, "what the build started outlives it"
        time.sleep(0.1)


@made.as_root
@made.needs_busybox()
@needs_buildah
def test_after_a_build_that_was_killed_the_next_one_builds(
    recipe: Path, base: Path, images: Path, containers: Path
) -> None:
    (recipe / "Dockerfile").write_text(made.TINY + "RUN sleep 30\n")
    options = ("tiny", "--arg", f"BASE={base}", "--tool", "buildah", "--format", "folder", "--image-dir", images)
    killed = made.xgen_build(*options, cwd=recipe)
    end = time.monotonic() + 30
    while not any("sleep 30" in log.read_text() for log in (images / STORE / "building").glob("*.log")):
        assert time.monotonic() < end, killed.poll()
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    made.finish(killed)
    (recipe / "Dockerfile").write_text(made.TINY)
    code, _, err = made.finish(made.xgen_build(*options, cwd=recipe))
    assert code == 0, err
    assert (images / "tiny/etc/motd").is_file()
