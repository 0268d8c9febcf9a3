"""`xgen image build`: an image from its recipe, into the image folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json
from xgen.cli.image import FormatOption, ImageDirOption, fail_image, print_image, progress, where_and_what


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", show_default=False, help="A folder with a Dockerfile, or its name in docker/, e.g. cpu."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What specs call it. Default: the folder's name.")
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Option(
            "--arg",
            metavar="KEY=VALUE",
            help="An ARG of the Dockerfile. A base may be a docker archive: BASE=FILE.tar.",
        ),
    ] = None,
    tool: Annotated[str, typer.Option("--tool", metavar="NAME", help="auto, docker, podman or buildah.")] = "auto",
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="MODE", help="Of the build's steps, e.g. host. Default: the tool's own."),
    ] = None,
    formats: FormatOption = None,
    cluster: ClusterOption = None,
    image_dir: ImageDirOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and run none of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build an image and import it; does nothing where the recipe has not changed."""
    from xgen.images.build import build_image, choose_tool, identify_recipe, make_plan
    from xgen.images.errors import ImageError
    from xgen.images.recipe import find_recipe, parse_args

    found = find_recipe(recipe, Path.cwd())
    values = parse_args(found, args or [])
    folder, wanted = where_and_what(cluster, image_dir, formats)
    try:
        if dry_run:
            key, ids = identify_recipe(found, values, tool)
            plan = make_plan(found, values, name or found.name, key, ids, choose_tool(tool), network=network)
            lines = [shlex.join(argv) for argv in plan.commands(folder, wanted)]
            print_json({"name": plan.name, "key": key, "commands": lines}) if as_json else print("\n".join(lines))
            return
        done = build_image(found, values, name or found.name, folder, wanted, progress(), tool=tool, network=network)
    except ImageError as error:
        fail_image(error)
    if as_json:
        print_json(
            {
                "name": done.imported.name,
                "recipe": found.folder,
                "key": done.key,
                "built": done.built,
                "imported": done.imported.made,
                "links": done.imported.links,
                "notes": done.imported.notes,
                "image": done.imported.record.model_dump(),
            }
        )
        return
    said = "built" if done.built else "the recipe has not changed, nothing to build"
    print_image(done.imported.name, said, done.imported)
