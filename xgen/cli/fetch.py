"""`xgen fetch`: data sets, models and tokenizers, brought to the shared file system by a node with a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from xgen.cli.common import JsonOption, print_json, usage

KINDS = ("dataset", "model", "tokenizer")


def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="dataset, model or tokenizer.", show_default=False)],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="ORG/NAME on the hub, or the URL of a file: https://…, or one that fsspec knows.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder on the shared file system.")],
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="Branch, tag or commit. Default: the newest.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Only files like this, e.g. 'data/train-*'; repeatable."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Of a file by URL: refuse any other content.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would come, write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a data set, a model or a tokenizer to the cluster, once, and check every file.

    Run it where there is a network; called again, it goes on where it was. HF_TOKEN opens what is private, HF_ENDPOINT
    names a mirror. DIR/xgen-fetch.json says which revision came, and is written last. For example:

    xgen fetch dataset HuggingFaceFW/fineweb --include 'sample/10BT/*' --to /shared/raw/fineweb
    """
    from xgen.data.errors import InterruptedBuildError, StoreError
    from xgen.data.fetch import Kind, fetch_repo, list_repo
    from xgen.data.fetch_url import fetch_url, is_url
    from xgen.data.progress import show_progress

    if kind not in KINDS:
        usage(f"KIND {kind!r} is not known; write {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    chosen = cast("Kind", kind)
    if is_url(name) and (revision or include):
        usage("--revision and --include are of the hub; a URL is one file")
    if not is_url(name) and sha256:
        usage("--sha256 is for a URL; what comes from the hub is checked against the hub")
    try:
        if dry_run:
            if is_url(name):
                usage("--dry-run is of the hub; a URL is one file")
            _show(name, *list_repo(chosen, name, revision, include or ()), as_json=as_json)
            return
        if is_url(name):
            with show_progress() as progress:
                fetched = fetch_url(chosen, name, to, sha256, progress)
        else:
            fetched = fetch_repo(chosen, name, to, revision, include or (), bars=sys.stderr.isatty())
    except InterruptedBuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except StoreError as error:
        usage(str(error))
    if as_json:
        print_json({"folder": str(to), **fetched.model_dump()})
        return
    size = sum(file.bytes for file in fetched.files.values())
    print(f"{to}  {len(fetched.files):,} files, {size / 1e6:,.1f} MB, revision {fetched.revision}, all checked")
    print(f"  without a network: {_use(kind, to)}")


def _use(kind: str, to: Path) -> str:
    if kind == "dataset":
        return f"xgen data build STORE --input {to} --domain NAME --tokenizer FILE (one split: --input hf:{to}:train)"
    if kind == "tokenizer":
        return f"xgen data build STORE --input … --domain NAME --tokenizer {to / 'tokenizer.json'}"
    return f"name the folder {to} wherever a model is asked for, with HF_HUB_OFFLINE=1"


def _show(name: str, commit: str, sizes: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "revision": commit, "files": sizes})
        return
    for path, size in sorted(sizes.items()):
        print(f"{size / 1e6:>12,.1f} MB  {path}")
    print(f"{name}  {len(sizes):,} files, {sum(sizes.values()) / 1e6:,.1f} MB, revision {commit}; nothing was written")
