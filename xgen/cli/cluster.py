"""`xgen cluster`: profiles, which say once how a cluster differs from others; `init` writes one, `show` compares it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import typer

from xgen.cli.common import JsonOption, print_json

app = typer.Typer(
    help="Cluster profiles: write one of what the site says, compare it, list them all (docs/clusters.md).\n\n"
    "  xgen cluster init --dry-run   a profile of what SLURM and this machine say\n\n"
    "  xgen cluster init atlas       the same in ~/.config/xgen/clusters/atlas.yaml\n\n"
    "  xgen cluster show atlas       what differs from the site, and what is free\n\n"
    "  xgen cluster projects atlas   what each project has used of its GPU-hours, and has left\n\n"
    "  xgen cluster list             all profiles, and where they lie",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(name="list")
def list_command(as_json: JsonOption = False) -> None:
    """List the profiles that --cluster knows by name, and the file of each.

    Of one name the first counts: ~/.config/xgen/clusters, then slurm/clusters of the project around this folder, then
    of the checkout that xgen runs from. * marks $XGEN_CLUSTER.
    """
    from xgen.drawing.tables import Table
    from xgen.spec import ElsewhereError, SpecError, load_profile
    from xgen.spec.load import known_profiles

    chosen = os.environ.get("XGEN_CLUSTER")
    facts: list[dict[str, object]] = []
    for name, file in sorted(known_profiles(Path.cwd()).items()):
        row: dict[str, object] = {"name": name, "file": str(file), "chosen": name == chosen}
        try:
            profile = load_profile(file)
        except ElsewhereError as error:
            says: dict[str, object] = {"scheduler": "ssh", "runtime": None, "run_root": f"at {error.ssh.said}"}
            facts.append(row | says | {"error": None})
        except SpecError as error:
            facts.append(row | {"scheduler": None, "runtime": None, "run_root": None, "error": str(error)})
        else:
            says = {"scheduler": profile.scheduler, "runtime": profile.container.runtime, "run_root": profile.run_root}
            facts.append(row | says | {"error": None})
    if as_json:
        print_json(facts)
        return
    rows = tuple(
        (
            f"{fact['name']}{'*' * bool(fact['chosen'])}",
            *(str(fact[key] or "?") for key in ("scheduler", "runtime", "run_root")), str(fact["file"]),
        )
        for fact in facts
    )  # fmt: skip
    table = Table(("cluster", "scheduler|", "runtime|", "runs|", "profile|"), rows)
    print("\n".join(table.to_text(shutil.get_terminal_size().columns)))
    for fact in facts:
        if fact["error"]:
            print(fact["error"], file=sys.stderr)
