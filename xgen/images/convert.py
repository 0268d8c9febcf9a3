"""Making the formats of an image, one step of `ways` after the other, in a folder that is thrown away."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xgen.images import commands, enroot
from xgen.images.archive import write_archive
from xgen.images.config import ImageConfig, archive_config, layout_config
from xgen.images.errors import ImageError
from xgen.images.progress import Progress, Tick
from xgen.images.rootfs import tidy
from xgen.images.source import Material, Source
from xgen.images.tools import PROBE_SECONDS, WORK_SECONDS, ToolError, answers, run
from xgen.images.ways import Way
from xgen.spec.image import Reference

_FILES: dict[Material, str] = {"layout": "layout", "tar": "tar", "folder": "folder", "sqsh": "sqsh", "sif": "sif"}
_CHUNK = 2**22
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DOES = {"layout": "fetch", "tar": "save", "folder": "unpack", "sqsh": "squash", "sif": "pack"}


@dataclass
class Work:
    """One import while it runs: what there is of the image so far, and what is known of it."""

    source: Source
    reference: Reference | None  # with its digest: a tag may move between two steps
    digest: str
    tmp: Path  # on the file system of the image folder; removed by the caller
    progress: Progress
    have: dict[Material, Path]
    config: ImageConfig | None = None
    recorded: ImageConfig = field(default_factory=ImageConfig)  # what an earlier import of this image knew
    tools: list[str] = field(default_factory=list)

    def go(self, way: Way) -> None:
        """Take one step. Raises ImageError, OSError."""
        target = self.tmp / _FILES[way.made]
        what = self.source.text if way.of == self.source.material else way.of
        with self.progress.step(f"{_DOES[way.made]} {what} with {way.tool}") as tick:
            if way.of == "sqsh" and self.config is None:
                self.config = squashfs_config(self.have["sqsh"])
            self._make(way, target, tick)
            self.have[way.made] = target
            if way.made in ("layout", "tar") and self.config is None:
                self.config = layout_config(target) if way.made == "layout" else archive_config(target)
            if way.made == "folder":
                self._finish_folder(way, target)
        if way.tool not in self.tools and way.tool not in ("cp", "tar"):
            self.tools.append(way.tool)

    def _make(self, way: Way, target: Path, tick: Tick) -> None:
        if way.tool == "skopeo":
            self._skopeo(way, target, tick)
        elif way.tool == "umoci":
            self._run(commands.umoci_unpack(self.have["layout"], commands.TAG, target), tick)
        elif way.tool == "mksquashfs":
            processors = len(os.sched_getaffinity(0))
            argv = commands.mksquashfs(self.have["folder"], target, zstd=_squashes_zstd(), processors=processors)
            self._run(argv, tick, target)
        elif way.tool == "unsquashfs":
            self._run(commands.unsquashfs(self.have["sqsh"], target), tick)
        elif way.tool == "cp":
            self._run(commands.copy_tree(self.have["tree"], target), tick)
        elif way.tool == "tar":
            self._archive(target, tick)
        elif way.tool in ("apptainer", "singularity"):
            self._apptainer(way, target, tick)
        elif way.tool == "enroot":
            self._run(commands.enroot_import(self._pinned(), target), tick, target)
            self.config = self.config or squashfs_config(target)
        elif way.made == "folder":
            self._export(way.tool, target, tick)
        else:
            self._save(way, target, tick)

    def _pinned(self) -> Reference:
        assert self.reference is not None
        return self.reference

    def _run(self, argv: commands.Argv, tick: Tick, watch: Path | None = None) -> str:
        # Tools put what is too big for memory into /var/tmp, which may be small; here it is cleared with the rest.
        return run(argv, timeout=WORK_SECONDS, tick=tick, watch=watch, env={"TMPDIR": str(self.tmp)})

    def _skopeo(self, way: Way, target: Path, tick: Tick) -> None:
        plain_http = False
        if way.of == "registry":
            reference = self._pinned()
            plain_http = commands.is_loopback(reference.registry)
            source = f"docker://{reference}"
        elif way.of == "containers-storage":
            source = f"{way.of}:{self.source.image}"
        elif way.of == "layout":
            source = f"oci:{self.have['layout']}:{commands.TAG}"
        else:
            source = f"{'docker-archive' if way.of == 'tar' else way.of}:{self.have[way.of]}"
        end = f"oci:{target}:{commands.TAG}" if way.made == "layout" else f"docker-archive:{target}:{self._tag}"
        policy = commands.has_policy(Path.home())
        self._run(
            commands.skopeo_copy(source, end, plain_http=plain_http, policy=policy, tmp=self.tmp), tick, watch=target
        )

    @property
    def _tag(self) -> str:
        """What `docker load` calls an archive that we made."""
        return f"localhost/xgen:{self.digest.removeprefix('sha256:')[:12]}"

    def _save(self, way: Way, target: Path, tick: Tick) -> None:
        """Through the storage of docker, podman or buildah; what was not there before is removed from it again."""
        image = self.source.image
        known = True
        if way.of == "registry":
            image = str(self._pinned())
            known = _has_image(way.tool, image)
            for argv in commands.pull(way.tool, self._pinned()):
                self._run(argv, tick)
        try:
            self._run(commands.save(way.tool, image, target), tick, target)
        finally:
            if not known:
                _forget(way.tool, "rmi", image)

    def _export(self, tool: str, target: Path, tick: Tick) -> None:
        """A docker archive unpacked by docker or podman: a container that never runs, exported."""
        archive = self.have["tar"]
        self.config = self.config or archive_config(archive)
        image = self.config.digest
        known = _has_image(tool, image)
        self._run((tool, "load", "--quiet", f"--input={archive}"), tick)
        files = self.tmp / "export.tar"
        try:
            container = self._run((tool, "create", image.removeprefix("sha256:"), "/bin/true"), tick).split()[-1]
            try:
                self._run((tool, "export", f"--output={files}", container), tick, files)
            finally:
                _forget(tool, "rm", container)
        finally:
            if not known:
                _forget(tool, "rmi", image.removeprefix("sha256:"))
        target.mkdir()
        self._run(commands.untar(files, target), tick)
        files.unlink()

    def _archive(self, target: Path, tick: Tick) -> None:
        layer = self.tmp / "layer.tar"
        self._run(commands.tar_tree(self.have["folder"], layer), tick, layer)
        write_archive(layer, target, self.config or self.recorded, self._tag, tick)
        layer.unlink()

    def _apptainer(self, way: Way, target: Path, tick: Tick) -> None:
        """Unproven here: no apptainer on the machine that this was written on."""
        plain_http = False
        if way.of == "registry":
            reference = self._pinned()
            plain_http = commands.is_loopback(reference.registry)
            source = f"docker://{reference}"
        else:
            source = f"docker-archive:{self.have['tar']}" if way.of == "tar" else str(self.have[way.of])
        argv = commands.apptainer_build(way.tool, target, source, sandbox=way.made == "folder", plain_http=plain_http)
        self._run(argv, tick, target)

    def _finish_folder(self, way: Way, folder: Path) -> None:
        """A squashfs of this folder must start under enroot, which reads its files and no configuration."""
        tidy(folder)
        if way.of in ("layout", "tar") and self.config is not None:
            enroot.configure(folder, self.config)
        else:
            enroot.configure_bare(folder)


def keep(work: Work, want: Iterable[Material], out: Path, names: dict[Material, str]) -> None:
    """Move the wanted formats into `out`; a file that is a person's is copied. Raises OSError."""
    out.mkdir()
    for material in want:
        place = work.have[material]
        if place.parent == work.tmp:
            place.rename(out / names[material])
            continue
        with work.progress.step(f"copy {place.name}") as tick:
            copy_file(place, out / names[material], tick)


def is_packed(archive: Path) -> bool:
    """Whether an archive is a .tar.gz, .tar.bz2 or .tar.xz, whatever it is called."""
    return _opener(archive) is not None


def _opener(archive: Path) -> Any:
    with archive.open("rb") as file:
        head = file.read(6)
    return next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)


def unpack(archive: Path, target: Path, tick: Tick) -> None:
    """Write what a packed archive holds to `target`: skopeo 1.9 reads plain ones only. Raises OSError, ImageError."""
    done = 0
    try:
        with _opener(archive)(archive) as reader, target.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                done += len(chunk)
                tick(done)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ImageError(f"{archive}: cannot be unpacked ({error}); save the image again") from None


def copy_file(source: Path, target: Path, tick: Tick) -> None:
    done = 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
            done += len(chunk)
            tick(done)


def squashfs_config(image: Path) -> ImageConfig | None:
    """What enroot wrote into a squashfs; None where there is no unsquashfs, or the image has no such files."""
    if shutil.which("unsquashfs") is None:
        return None
    texts = {}
    for member in ("etc/environment", "etc/rc"):
        texts[member] = ""
        with contextlib.suppress(ToolError):
            texts[member] = run(commands.unsquashfs_cat(image, member), timeout=PROBE_SECONDS)
    return enroot.read_configured(texts["etc/environment"], texts["etc/rc"])


def _squashes_zstd() -> bool:
    """Debian's and RHEL's mksquashfs list what they were built with in their help, and exit with 1."""
    try:
        run(("mksquashfs", "-help"), timeout=PROBE_SECONDS)
    except ToolError as error:
        return "zstd" in str(error)
    except ImageError:
        return False
    return True


def _has_image(tool: str, image: str) -> bool:
    return answers(commands.image_id(tool, image))


def _forget(tool: str, verb: str, name: str) -> None:
    """Best effort: what stays in a tool's storage costs room there, and is not ours to fail on."""
    with contextlib.suppress(ToolError):
        run((tool, verb, name), timeout=PROBE_SECONDS)
