"""`xgen cluster init`: a profile of what SLURM and this machine say."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.site.draft import Draft
    from xgen.cluster.site.machine import Asked


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", show_default=False, help="Default: SLURM's ClusterName.")
    ] = None,
    run_root: Annotated[
        Path | None,
        typer.Option(
            "--run-root", metavar="DIR", help="Where runs lie: a folder that all nodes share.", show_default=False
        ),
    ] = None,
    image_dir: Annotated[
        Path | None,
        typer.Option(
            "--image-dir", metavar="DIR", help="Where images lie. Default: beside the runs.", show_default=False
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            "--python",
            metavar="PATH",
            show_default=False,
            help="Python of the jobs, where it is not the image's own; its environment is mounted into the container.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What you know better, e.g. gpus.flops=989T or kill_wait=30s."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", show_default=False, help="Default: NAME.yaml in ~/.config/xgen/clusters."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the profile, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask SLURM and this machine how this cluster works, and write it down as a profile.

    Run it on a login node. Each value stands with where it is from; what SLURM does not say is a guess, and says how to
    check it. Nothing is submitted. Without SLURM it is the profile of one machine. What it cannot know is yours to say:

      xgen cluster init atlas --run-root /shared/runs --set gpus.mfu=0.4
    """  # fmt: skip
    from datetime import datetime

    from xgen.cluster.site.machine import Asked
    from xgen.cluster.site.text import guesses, profile_text, raw_profile, reasons
    from xgen.cluster.site.write import read_back, write_profile
    from xgen.spec.load import known_profiles, profile_folder, project_root, with_absolute_paths

    root = project_root(Path.cwd())
    asked = Asked(*(path and Path.cwd() / path.expanduser() for path in (run_root, image_dir, python)))
    site, found = _draft(root, asked)
    name = name or site
    if "/" in name or name.endswith(".yaml"):
        usage(f"{name!r} is no name; write a word, or --out FILE")
    there = known_profiles(Path.cwd()).get(name)
    if out is None and there and there.parent != profile_folder() and not (force or dry_run):
        usage(f"{name} is {there}, and this one would count instead of it; write another name, --out FILE or --force")
    raw, whys = raw_profile(found, overrides or ())
    if "run_root" not in raw:
        usage("no folder of this machine looks shared between nodes; write --run-root DIR")
    if "partitions" not in raw:
        said = "".join(f"{line}\n" for line in found.head[1:])
        usage(f"{said}no partition is known to be open to you; write --set 'partitions={{NAME: {{max_time: 1d}}}}'")
    raw = with_absolute_paths(raw, root)
    file = (Path.cwd() / out.expanduser()) if out else profile_folder() / f"{name}.yaml"
    written = f"Written by xgen cluster init on {datetime.now():%d %b %Y}; xgen cluster show {name} compares it again."
    text = profile_text(found, raw, whys, written)
    profile = read_back(text, "the profile")
    if not dry_run and not write_profile(file, text, force=force):
        usage(f"{file} is there already; write --force to replace it, --out FILE, or --dry-run to look")
    if as_json:
        facts = {"name": name, "file": None if dry_run else str(file), "profile": raw, "check": guesses(whys)}
        print_json(facts | {"from": reasons(whys)})
    elif dry_run:
        print(text, end="")
    else:
        parts = len(profile.partitions)
        print(f"{file}  {profile.scheduler}, {parts} partition{'s' * (parts != 1)}, {profile.container.runtime}")
        _print_next(name if out is None else str(file), guesses(whys))


def _draft(root: Path, asked: Asked) -> tuple[str, Draft]:
    """The site's own name, and what is known of it. Raises SchedulerError for a SLURM that does not answer."""
    from xgen.cluster.site import ask_site
    from xgen.cluster.site.draft import draft, local_draft
    from xgen.cluster.site.machine import look_around

    if shutil.which("scontrol") is None:
        said = "scontrol is not on PATH"
        print(f"{said}, so this is the profile of one machine; on a cluster run it on a login node", file=sys.stderr)
        machine = look_around(root, image_dir=asked.image_dir)
        return machine.host, local_draft(machine, asked, said)
    site = ask_site()
    for line in site.unanswered:
        print(f"not known: {line}", file=sys.stderr)
    machine = look_around(root, site.config.get("SLURM_CONF", ""), asked.image_dir)
    return site.cluster, draft(site, machine, asked)


def _print_next(name: str, check: dict[str, str]) -> None:
    import textwrap

    width = shutil.get_terminal_size().columns
    for key, said in check.items():
        print("\n".join(textwrap.wrap(f"check   {key}: {said}", width, subsequent_indent=" " * 8)))
    print(f"next    xgen cluster show {name}")
    print(f"        xgen submit SPEC --cluster {name} --dry-run")
