"""What `enroot import` writes into an image, so that a squashfs made without enroot starts the same way.

Source: `docker::configure` in src/docker.sh of NVIDIA/enroot.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from xgen.images.config import ImageConfig

_RC_LOCAL = """\
# This file is sourced by /etc/rc when the container starts.
# It can be used to manipulate the entrypoint or the command of the container.
"""


def environment(config: ImageConfig) -> str:
    """/etc/environment: enroot sets these in every container of the image."""
    return "".join(f"{name}={value}\n" for name, value in config.env.items())


def fstab(config: ImageConfig) -> str:
    """/etc/fstab: the image's volumes, writable in the container."""
    line = "${{ENROOT_ROOTFS}}{0} {0} none x-create=dir,bind,rw,nosuid,nodev\n"
    return "".join(line.format(volume) for volume in config.volumes)


def rc(config: ImageConfig) -> str:
    """/etc/rc: what enroot runs with /bin/sh; labels stand in it as comments."""
    comments = "".join(
        f"# {name} {value}\n".replace("\n", " ").rstrip() + "\n" for name, value in config.labels.items()
    )
    workdir = shlex.quote(config.working_dir or "/")
    entrypoint = " ".join(map(shlex.quote, config.entrypoint))
    cmd = " ".join(map(shlex.quote, config.cmd or (() if config.entrypoint else ("/bin/sh",))))
    lines = [
        f"mkdir -p {workdir} 2> /dev/null",
        f"cd {workdir} && unset OLDPWD || exit 1",
        "",
        "if [ -s /etc/rc.local ]; then",
        "    . /etc/rc.local",
        "fi",
        "",
        "if [ $# -gt 0 ]; then",
        f'    exec {entrypoint} "$@"'.replace("exec  ", "exec "),
        "else",
        f"    exec {entrypoint} {cmd}".replace("exec  ", "exec ").rstrip(),
        "fi",
    ]
    return (f"{comments}\n" if comments else "") + "\n".join(lines) + "\n"


def configure(root: Path, config: ImageConfig) -> None:
    """Write all of it into an unpacked image. A link in the image's /etc is replaced, never followed."""
    etc = root / "etc"
    if etc.is_symlink():
        etc.unlink()
    etc.mkdir(parents=True, exist_ok=True)
    texts = {"environment": environment(config), "fstab": fstab(config), "rc": rc(config), "rc.local": _RC_LOCAL}
    for name, text in texts.items():
        (etc / name).unlink(missing_ok=True)
        (etc / name).write_text(text, encoding="utf-8")
        (etc / name).chmod(0o755 if name.startswith("rc") else 0o644)
    make_workdir(root, config.working_dir)


def configure_bare(root: Path) -> None:
    """For a folder of which nothing is known: its own files stay, it gets only what starts a shell."""
    etc = root / "etc"
    for name, text in {"rc": rc(ImageConfig()), "rc.local": _RC_LOCAL}.items():
        if not etc.is_symlink() and not os.path.lexists(etc / name):
            (etc / name).write_text(text, encoding="utf-8")
            (etc / name).chmod(0o755)


def make_workdir(root: Path, working_dir: str) -> None:
    """The image's working directory, made where no link on the way leads out of the image."""
    place = root
    for part in Path(os.path.normpath(f"/{working_dir}")).parts[1:]:
        place = place / part
        if place.is_symlink():
            return
        place.mkdir(exist_ok=True)


def read_configured(env_text: str, rc_text: str) -> ImageConfig:
    """Environment and labels of a squashfs that enroot, or `configure`, made."""
    env = dict(line.split("=", 1) for line in env_text.splitlines() if "=" in line and not line.startswith("#"))
    labels = {}
    for line in rc_text.splitlines():
        if not line.startswith("# "):
            break
        name, _, value = line[2:].partition(" ")
        labels[name] = value
    return ImageConfig(env=env, labels=labels)
