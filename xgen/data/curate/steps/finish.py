"""assemble: the stores of all mixtures, what a training needs to read them, the report, and the hashes of all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from xgen.data.assemble import assemble
from xgen.data.curate.report_html import REPORT_PAGE, render_report
from xgen.data.curate.report_model import REPORT_FILE
from xgen.data.curate.steps.balance import MixturePlan, mixture_items, read_mixture
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.earlier import INDEX_FILE, INDEXED, IndexMeta, index_file
from xgen.data.curate.steps.folders import clear_leftovers, clear_others, write_json
from xgen.data.curate.steps.kept import Kept
from xgen.data.curate.steps.report import make_report
from xgen.data.curate.steps.results import MANIFEST_FILE, MIXTURES_FILE
from xgen.data.curate.steps.shuffle import INDEX, index_items, store_folder, stretch_items
from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.meta import PARTS_DIR, FileMeta, StoreMeta, file_meta
from xgen.data.staging import exclusive, sync_tree
from xgen.data.tokenizer import Tokenizer


class Manifest(BaseModel):
    """manifest.json: what the corpus follows from, and the hash of every file but those of the stores, which have their
    own in meta.json."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    recipe: str
    xgen: str
    stores: dict[str, str]  # fingerprint of each store, by folder
    files: dict[str, FileMeta]


def read_manifest(out: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json((out / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def check_place(context: Context) -> bool:
    """Whether the corpus is there already. Raises StoreError for another one that is not to be replaced."""
    found = read_manifest(Path(context.job.out))
    if found and found.recipe != context.whole and not context.job.replace:
        fix = "write another `out`, or replace: true where nothing reads it"
        raise StoreError(context.job.out, "holds the corpus of another spec", fix)
    return found is not None and found.recipe == context.whole


def finish(context: Context, tick: Callable[[int], None]) -> None:
    """Put the output in its place. Again after any kill. Raises StoreError."""
    out = Path(context.job.out)
    with exclusive(out, 0):
        if check_place(context):
            return
        building = context.work / "assemble"
        building.mkdir(exist_ok=True)
        stretches = stretch_items(context)
        tokenizer = Tokenizer.load(Path(context.job.tokenizer))
        stores: dict[str, StoreMeta] = {}
        for name, items in stretches.items():
            context.need(items, "shuffle")
            folder = store_folder(context, name)
            _clear_other(folder, context.work / f"assemble.{name}", mixture_items(context)[name].recipe)
            stores[name] = assemble(folder, [item.folder for item in items], tokenizer, context.whole)
            clear_others(folder / PARTS_DIR, (part.name for part in stores[name].parts))
            tick(0)
        plans = {name: read_mixture(context, name) for name in stores}
        for name, meta in stores.items():
            if meta.num_tokens != plans[name].planned:
                what = f"has {meta.num_tokens:,} tokens, and {plans[name].planned:,} were planned"
                raise InterruptedBuildError(
                    store_folder(context, name), what, "remove the work folder, and run it again"
                )
        (building / MIXTURES_FILE).write_text(_mixtures(plans, out), encoding="utf-8")
        report = make_report(context, stores)
        write_json(building / REPORT_FILE, report)
        (building / REPORT_PAGE).write_text(render_report(report), encoding="utf-8")
        known = _put_index(context, building / INDEX)
        others = [building / MIXTURES_FILE, building / REPORT_FILE, building / REPORT_PAGE]
        others += [building / INDEX / INDEX_FILE] if known else []
        manifest = Manifest(
            recipe=context.whole,
            xgen=version("xgen"),
            stores={name: meta.fingerprint for name, meta in stores.items()},
            files={file.relative_to(building).as_posix(): file_meta(file) for file in others}
            | {f"{INDEX}/{name}": about for name, about in known.items()},
        )
        write_json(building / MANIFEST_FILE, manifest)
        clear_others(building, [*manifest.stores, *(name.partition("/")[0] for name in manifest.files), MANIFEST_FILE])
        sync_tree(building)
        if out.exists():
            replaced = context.work / "replaced"
            shutil.rmtree(replaced, ignore_errors=True)
            out.rename(replaced)
            shutil.rmtree(replaced)
        building.rename(out)
        clear_leftovers(context.work)
        for step in ("tag", "lines", "select"):
            if (context.work / step).is_dir():  # of units that are read no more
                clear_others(context.work / step, (unit.name for unit in context.plan.units))


def _put_index(context: Context, folder: Path) -> dict[str, FileMeta]:
    """Link the buckets into their place; what they are, by name."""
    shutil.rmtree(folder, ignore_errors=True)
    items = index_items(context)
    if not items:
        return {}
    context.need(items, "shuffle")
    folder.mkdir()
    for number, item in enumerate(items):
        for section in INDEXED:
            os.link(index_file(item.folder, section, number), index_file(folder, section, number))
    files = {file.name: file_meta(file) for file in sorted(folder.iterdir())}
    spec = context.job.dedup
    meta = IndexMeta(
        ngram=spec.ngram,
        bands=spec.bands,
        rows=spec.rows,
        num_documents=sum(Kept.open(context).names.documents),
        num_buckets=len(items),
        files=files,
    )
    write_json(folder / INDEX_FILE, meta)
    return files


def _clear_other(folder: Path, mark: Path, recipe: str) -> None:
    """What an assembly of another plan left; `mark` names the plan."""
    if folder.exists() and (not mark.is_file() or mark.read_text() != recipe):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    clear_others(folder, [PARTS_DIR])  # the rest is written anew
    mark.write_text(recipe)


def _mixtures(plans: dict[str, MixturePlan], out: Path) -> str:
    """A base for a pretrain spec. A training of a mixture's tokens sees each token of its store once."""
    data = {
        "stores": {name: str(out / name) for name in plans},
        "mixtures": {
            name: {f"{name}/{domain}": tokens for domain, tokens in one.weights.items()} for name, one in plans.items()
        },
    }
    return yaml.safe_dump({"data": data}, sort_keys=False)
