"""A docker archive of an unpacked image: one layer and a configuration, as `docker save` lays them out."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

from xgen.images.config import ImageConfig, machine, parse_config
from xgen.images.progress import Tick
from xgen.images.treehash import file_digest


def config_text(config: ImageConfig, layer_digest: str) -> bytes:
    """The configuration of an image with one layer (OCI image-spec, config.md)."""
    inner = {
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "Labels": config.labels,
        "Entrypoint": list(config.entrypoint) or None,
        "Cmd": list(config.cmd) or None,
        "WorkingDir": config.working_dir,
    }
    outer = {
        "architecture": config.architecture or machine(),
        "os": "linux",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created_by": "xgen image import"}],
    }
    return json.dumps(outer, sort_keys=True).encode()


def write_archive(layer: Path, target: Path, config: ImageConfig, tag: str, tick: Tick) -> None:
    """`layer` is a tar of the files; `tag` is what `docker load` calls the image."""
    text = config_text(config, file_digest(layer, tick))
    name = f"{parse_config(text).digest.removeprefix('sha256:')}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in ((name, text), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
        archive.add(layer, "layer.tar")
