"""`xgen image check`: start an image here, and say what is in it and what does not fit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, usage
from xgen.cli.image import ImageDirOption, fail_image

if TYPE_CHECKING:
    from xgen.spec.cluster import ContainerSetup


def command(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", show_default=False, help="A name in the image folder, or a path.")
    ],
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", metavar="NAME", help="charliecloud, podman or docker. Default: what starts here."),
    ] = None,
    cluster: ClusterOption = None,
    image_dir: ImageDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start an image here: its versions, and whether they fit each other and what the cluster mounts."""
    from xgen.cluster.runtimes import RUNTIMES
    from xgen.images.check import (
        choose_runtime,
        driver_cuda,
        judge,
        look_inside,
        mounted_environment,
        problems,
    )
    from xgen.images.errors import ImageError
    from xgen.images.resolve import resolve_image

    setup = _setup(cluster, needed=image_dir is None and "/" not in image)
    folder = str(image_dir) if image_dir is not None else setup.image_dir if setup is not None else None
    try:
        starter = choose_runtime(runtime, setup.runtime if setup is not None else None)
        formats = [kind for kind in RUNTIMES[starter].formats if kind != "registry"]
        found = resolve_image(image, folder, formats, lambda _: "")
        mounts = setup.mounts if setup is not None else []
        python = setup.python if setup is not None else None
        facts = look_inside(starter, found, mounts, [python] if python else ["python3"])
    except ValueError as error:
        usage(str(error))
    except ImageError as error:
        fail_image(error)
    rows = judge(facts, mounted_environment(python, mounts), driver_cuda())
    wrong = list(problems(rows))
    if as_json:
        print_json({"image": found.to_dict(), "runtime": starter, "ok": not wrong, "facts": rows})
    else:
        print(f"{image}: {found.location} with {starter}")
        for row in rows:
            print(f"  {row.name:<11} {row.value}")
    for line in wrong:
        print(f"{image}: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)


def _setup(cluster: str | None, *, needed: bool) -> ContainerSetup | None:
    """What the cluster mounts and starts; None where none is named and none is needed."""
    from xgen.spec import find_profile, load_profile

    if not needed and cluster is None and not os.environ.get("XGEN_CLUSTER"):
        return None
    return load_profile(find_profile(cluster, Path.cwd())[1]).container
