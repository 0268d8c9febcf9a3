"""From a spec's word to the bits that start."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from xgen.images.record import RECORD, STORE, ImageRecord
from xgen.images.resolve import Image, Kind, resolve_image
from xgen.spec.image import Reference

DIGEST = "sha256:" + "ab12" * 16


def never(reference: Reference) -> str:
    raise AssertionError(f"no registry was to be asked for {reference}")


def resolve(text: str, image_dir: Path | None, *formats: Kind) -> Image:
    return resolve_image(text, str(image_dir) if image_dir else None, formats, never)


def archive(place: Path) -> Path:
    """A docker archive as far as its name for itself goes."""
    with tarfile.open(place, "w") as tar:
        text = json.dumps([{"Config": f"{DIGEST[7:]}.json", "Layers": []}]).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return place


def imported(image_dir: Path, name: str) -> Path:
    """A folder image as `xgen image import` leaves it."""
    content = image_dir / STORE / DIGEST[7:19]
    (content / "folder").mkdir(parents=True)
    record = ImageRecord(name=name, digest=DIGEST, source="s", created=1.0, tool="t", formats={"folder": 1})
    (content / RECORD).write_text(record.model_dump_json())
    (image_dir / name).symlink_to(Path(STORE) / DIGEST[7:19] / "folder")
    return content / "folder"


def test_a_name_is_followed_to_the_content_that_never_changes(tmp_path: Path) -> None:
    content = imported(tmp_path, "trainer")
    image = resolve("trainer", tmp_path, "folder", "tar")
    assert (image.kind, image.location, image.digest, image.mtime) == ("folder", str(content), DIGEST, 0)


def test_the_format_that_the_runtime_likes_best_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a.sif").write_bytes(b"SIF")
    assert resolve("a", tmp_path, "sif", "folder").kind == "sif"
    assert resolve("a", tmp_path, "folder", "sif").kind == "folder"


def test_a_file_of_unknown_origin_is_remembered_by_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a.sqsh").write_bytes(b"hsqs")
    image = resolve(str(tmp_path / "a.sqsh"), None, "sqsh")
    assert (image.digest, image.size, image.mtime) == ("", 4, int((tmp_path / "a.sqsh").stat().st_mtime))


def test_an_archive_is_known_by_the_name_that_docker_gives_what_it_loads(tmp_path: Path) -> None:
    assert resolve(str(archive(tmp_path / "a.tar")), None, "tar").digest == DIGEST
    (tmp_path / "b.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"b\.tar is no docker archive of one image; write `xgen image import "):
        resolve(str(tmp_path / "b.tar"), None, "tar")


def test_a_tag_becomes_the_digest_that_the_registry_says() -> None:
    asked = []

    def pin(reference: Reference) -> str:
        asked.append(str(reference))
        return DIGEST

    image = resolve_image("nvcr.io/nvidia/pytorch:25.06-py3", None, ("sqsh", "registry"), pin)
    assert asked == ["nvcr.io/nvidia/pytorch:25.06-py3"]
    assert (image.kind, image.location, image.digest) == ("registry", f"nvcr.io/nvidia/pytorch@{DIGEST}", DIGEST)
    assert str(image.registry) == image.location
    again = resolve_image(image.location, None, ("registry",), never)  # nothing to ask for
    assert again.digest == DIGEST


@pytest.mark.parametrize(
    ("text", "formats", "said"),
    [
        ("nowhere", ("sqsh",), "'nowhere' is not there as {at}/nowhere.sqsh; write `xgen image build` or "),
        (
            "box",
            ("sqsh",),
            "'box' is not there as {at}/box.sqsh; write `xgen image import {at}/box --name box --format sqsh`",
        ),
        (
            "{at}/box",
            ("sif",),
            "{at}/box is a folder image, which this runtime does not start; write `xgen image import",
        ),
        ("{at}/none.sif", ("sif",), "{at}/none.sif is not there; write the path of an image, or a name in image_dir"),
        ("x.org/a:1", ("folder",), "x.org/a:1 is in a registry, and this runtime starts files only (folder); write"),
    ],
)
def test_a_mistake_says_what_to_write(tmp_path: Path, text: str, formats: tuple[Kind, ...], said: str) -> None:
    (tmp_path / "box").mkdir()
    with pytest.raises(ValueError) as caught:
        resolve(text.format(at=tmp_path), tmp_path, *formats)
    assert str(caught.value).startswith(said.format(at=tmp_path))


def test_a_name_without_an_image_folder_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="'a' is a name, and the cluster profile has no image_dir; write a path"):
        resolve("a", None, "sqsh")
