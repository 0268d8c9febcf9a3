"""`xgen image`: put images into the image folder, and see what is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.images.importing import Imported
    from xgen.images.listing import Row
    from xgen.images.progress import Progress
    from xgen.images.record import Format
    from xgen.images.resolve import Kind
    from xgen.spec import RuntimeName

app = typer.Typer(
    help="Images on the shared file system: build, import, check, list.", no_args_is_help=True, rich_markup_mode=None
)

ImageDirOption = Annotated[
    Path | None,
    typer.Option(
        "--image-dir", metavar="DIR", help="The image folder. Default: the cluster profile's.", show_default=False
    ),
]

FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="FORMAT", help="folder, sqsh, sif or tar. Default: what the runtime starts."),
]


@app.command(name="import")
def import_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="REGISTRY/NAME:TAG, a docker or OCI archive, a root folder, a .sqsh, a .sif, "
            "docker-daemon:NAME, podman:NAME or containers-storage:NAME.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What specs call it. Default: of the source.")
    ] = None,
    formats: FormatOption = None,
    cluster: ClusterOption = None,
    image_dir: ImageDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an image into the image folder, once."""
    from xgen.images.errors import ImageError
    from xgen.images.importing import import_image

    folder, wanted = where_and_what(cluster, image_dir, formats)
    try:
        done = import_image(source, folder, wanted, progress(), name=name)
    except ImageError as error:
        fail_image(error)
    if as_json:
        print_json(
            {
                "name": done.name,
                "imported": done.made,
                "links": done.links,
                "notes": done.notes,
                "image": done.record.model_dump(),
            }
        )
        return
    print_image(
        done.name, f"imported as {', '.join(done.made)}" if done.made else "is there already, nothing to do", done
    )


@app.command(name="list")
def list_command(cluster: ClusterOption = None, image_dir: ImageDirOption = None, as_json: JsonOption = False) -> None:
    """List the images in the image folder."""
    from xgen.images.listing import list_images

    folder = _image_dir(cluster, image_dir)
    rows = list_images(folder)
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(f"no images in {folder}; write xgen image import SOURCE")
        return
    header = ("name", "digest", "formats", "created", "commit", "source")
    cells = [_cells(row) for row in rows]
    widths = [max(len(row[i]) for row in (header, *cells)) for i in range(len(header))]
    for row in (header, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for broken in (link for row in rows for link in row.broken):
        print(f"{folder / broken} leads nowhere; remove it or import it again", file=sys.stderr)


def _cells(row: Row) -> tuple[str, ...]:
    from xgen.spec.units import format_bytes

    formats = ", ".join(kind if size is None else f"{kind} {format_bytes(size)}" for kind, size in row.formats.items())
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created)) if row.created else "-"
    source = row.source or "not put there by xgen"
    return (row.name or "(no name)", row.digest[7:19] or "-", formats or "-", created, row.revision[:12] or "-", source)


def _image_dir(cluster: str | None, image_dir: Path | None) -> Path:
    if image_dir is not None:
        if cluster is not None:
            usage("--cluster and --image-dir both say where; write one of them")
        return image_dir
    return _profile_dir(cluster)[0]


def _profile_dir(cluster: str | None) -> tuple[Path, RuntimeName]:
    """The image folder and the runtime of a cluster."""
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(cluster, Path.cwd())
    container = load_profile(file).container
    if container.image_dir is None:
        usage(
            f"{file}: container.image_dir is not set, so {name} has no image folder; add it, or write --image-dir DIR"
        )
    return Path(container.image_dir), container.runtime


def where_and_what(cluster: str | None, image_dir: Path | None, formats: list[str] | None) -> tuple[Path, list[Format]]:
    from xgen.images.formats import FORMATS, check_format

    wanted = [check_format(text) for text in formats or ()]
    choices = " or ".join(f"--format {kind}" for kind in FORMATS)
    if image_dir is not None:
        if not wanted:
            usage(f"--image-dir names no runtime that would say which format to make; write {choices}")
        return _image_dir(cluster, image_dir), wanted
    folder, runtime = _profile_dir(cluster)
    wanted = wanted or [kind for kind in _started_by(runtime) if kind in FORMATS][:1]
    if not wanted:
        usage(f"container.runtime is {runtime}, which starts no image; write {choices}")
    return folder, wanted


def _started_by(runtime: RuntimeName) -> tuple[Kind, ...]:
    """Formats that a runtime starts, the best first."""
    from xgen.cluster.runtimes import RUNTIMES

    return RUNTIMES[runtime].formats


def print_image(name: str, said: str, done: Imported) -> None:
    """What became of an image, for a person."""
    from xgen.spec.units import format_bytes

    sizes = ", ".join(f"{kind} {format_bytes(size)}" for kind, size in done.record.formats.items())
    print(f"{name}: {said}  ({done.record.digest[7:19]}: {sizes})")
    for link in done.links:
        print(f"  {link}")
    for note in done.notes:
        print(f"  note: {note}")


def progress() -> Progress:
    """To stderr: stdout holds the result."""
    from xgen.images.progress import Lines, Terminal

    return Terminal(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)


def fail_image(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    sys.exit(1)
