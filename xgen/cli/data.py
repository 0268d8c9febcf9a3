"""`xgen data`: token stores are built, shown and verified; what a run consumed is audited."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli import data_audit, data_chat, data_curate, data_report, data_trace, data_train_classifier
from xgen.cli.common import JsonOption, WorkersOption, print_json, usage

if TYPE_CHECKING:
    from xgen.data import TokenStore
    from xgen.data.units import Plan

app = typer.Typer(
    help="Token stores: build, info, verify; audit what a run consumed.", no_args_is_help=True, rich_markup_mode=None
)

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the store; appears whole or not at all.")]
StoresArgument = Annotated[list[Path], typer.Argument(metavar="STORE...", help="Folders of token stores.")]
StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a token store.")]
InputOption = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="PATH",
        help="A .jsonl[.zst|.gz], .parquet, .arrow, .warc[.gz|.zst] or .html file, a folder of these, a URL of either "
        "(s3://…), or hf:NAME[:SPLIT]; may be repeated.",
    ),
]
DomainOption = Annotated[str | None, typer.Option("--domain", help="Domain of all records.", metavar="NAME")]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="Name of the collection; default: the folder's.", metavar="NAME")
]
LicenceOption = Annotated[str, typer.Option("--licence", help="Of all records.")]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json; default: one is trained.")
]
VocabOption = Annotated[int, typer.Option("--vocab-size", min=257, help="Of a tokenizer that is trained.")]
TextKey = Annotated[str, typer.Option("--text-key", metavar="KEY", help="Key of the text in a record.")]
DomainKey = Annotated[str | None, typer.Option("--domain-key", metavar="KEY", help="Key of the domain.")]
SourceKey = Annotated[str | None, typer.Option("--source-key", metavar="KEY", help="Key of the source.")]
LicenceKey = Annotated[str | None, typer.Option("--licence-key", metavar="KEY", help="Key of the licence.")]
BadOption = Annotated[
    str,
    typer.Option(
        "--on-bad-record",
        metavar="stop|quarantine",
        help="stop: an error with file and line; quarantine: listed in the store's quarantine.jsonl.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="auto|tiktoken|tokenizers",
        help="auto: tiktoken where it gives the same ids, held against tokenizers on samples.",
    ),
]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for another build of this store.")]


@app.command()
def build(
    out: OutArgument,
    inputs: InputOption,
    domain: DomainOption = None,
    source: SourceOption = None,
    licence: LicenceOption = "unknown",
    tokenizer: TokenizerOption = None,
    vocab_size: VocabOption = 32_000,
    text_key: TextKey = "text",
    domain_key: DomainKey = None,
    source_key: SourceKey = None,
    licence_key: LicenceKey = None,
    on_bad_record: BadOption = "stop",
    engine: EngineOption = "auto",
    workers: WorkersOption = 0,
    wait: WaitOption = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read, write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tokenize text into a store that training reads.

    Interrupted, it goes on where it was when it is called again; nothing is skipped silently. For example:

    xgen data build /shared/stores/web --input /shared/raw/web --domain web --tokenizer tokenizer.json
    """
    import time

    from xgen.data.errors import InterruptedBuildError, StoreError
    from xgen.data.ingest import Recipe, build_store
    from xgen.data.places import absolute, stem
    from xgen.data.progress import show_progress
    from xgen.data.readers import Defaults, Keys
    from xgen.data.units import plan_units

    for option, value, known in (
        ("--on-bad-record", on_bad_record, ("stop", "quarantine")),
        ("--engine", engine, ("auto", "tiktoken", "tokenizers")),
    ):
        if value not in known:
            usage(f"{option} {value!r} is not known; write {' or '.join(known)}")
    if not domain and not domain_key:
        usage("no domain given; write --domain NAME, or --domain-key KEY if the records say it")
    recipe = Recipe(
        inputs=tuple(map(absolute, inputs)),
        defaults=Defaults(domain or "unknown", source or stem(inputs[0]), licence),
        keys=Keys(text_key, domain_key, source_key, licence_key),
        tokenizer=tokenizer and tokenizer.absolute(),
        vocab_size=vocab_size,
        on_bad_record=on_bad_record,  # type: ignore[arg-type]
        engine=engine,  # type: ignore[arg-type]
    )
    try:
        if dry_run:
            _show_plan(plan_units(recipe.inputs), as_json)
            return
        began = time.monotonic()
        with show_progress() as progress:
            built = build_store(out, recipe, workers, wait, progress)
    except InterruptedBuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except StoreError as error:
        usage(str(error))
    seconds = time.monotonic() - began
    engine_used = built.choice.engine if built.choice else None
    if as_json:
        facts = {"store": str(out), "units": built.encoded, "units_found": built.found, "engine": engine_used}
        print_json({**facts, "ignored": built.ignored, "seconds": round(seconds, 2), **store_facts(built.store)})
        return
    if built.choice is None:
        print(f"{out}  up to date")
        return
    found = f", {built.found} were there already" if built.found else ""
    print(f"{out}  built in {seconds:.1f} s with {engine_used}: {built.encoded} units{found}")
    print(_table(built.store))
    if built.choice.reason:
        print(f"  tiktoken, five times as fast, cannot stand in for this tokenizer: {built.choice.reason}")
    _print_left_out(built.store, built.ignored)


@app.command()
def info(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Say what a store holds: domains, tokens, lengths of documents, what was quarantined."""
    opened = _open(store)
    if as_json:
        print_json({"store": str(store), **store_facts(opened)})
        return
    meta = opened.meta
    print(f"{store}  fingerprint {meta.fingerprint}, {len(meta.parts)} parts, vocabulary {meta.vocab_size:,}")
    print(_table(opened))
    _print_left_out(opened, {})
    for item in meta.sources[:20]:
        print(f"  source {item.name} ({item.licence})")
    if len(meta.sources) > 20:
        print(f"  and {len(meta.sources) - 20:,} sources more: --json lists all")


@app.command()
def verify(stores: StoresArgument, as_json: JsonOption = False) -> None:
    """Read every byte and check every checksum; exit code 1 when one is wrong, each broken file named."""
    from xgen.data.errors import StoreError
    from xgen.data.progress import show_progress
    from xgen.data.store import read_meta
    from xgen.data.verify import find_faults

    result: dict[str, Any] = {}
    for store in stores:
        faults = []
        try:
            meta = read_meta(store)
            with show_progress() as progress:
                faults = [f"{fault.place}: {fault.what}" for fault in find_faults(store, progress)]
        except StoreError as error:
            faults = [str(error)]
        result[str(store)] = {"verified": not faults, "faults": faults}
        if not faults:
            result[str(store)] |= {"files": len(meta.files), "fingerprint": meta.fingerprint}
        if as_json:
            continue
        for fault in faults:
            print(fault, file=sys.stderr)
        if not faults:
            print(f"{store}  verified, {len(meta.files)} files, fingerprint {meta.fingerprint}")
    if as_json:
        print_json(result)
    sys.exit(0 if all(found["verified"] for found in result.values()) else 1)


app.command(name="audit")(data_audit.command)
app.command(name="chat")(data_chat.command)
app.command(name="curate")(data_curate.command)
app.command(name="report")(data_report.command)
app.command(name="trace")(data_trace.command)
app.command(name="train-classifier")(data_train_classifier.command)


def _open(path: Path) -> TokenStore:
    from xgen.data import StoreError, TokenStore

    try:
        return TokenStore.open(path)
    except StoreError as error:
        usage(str(error))


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json({"units": plan.units, "ignored": plan.ignored})
        return
    for number, unit in enumerate(plan.units):
        first = unit.pieces[0]
        part = f", {first.first} to {first.last - 1}" if first.last else ""
        more = f" and {len(unit.pieces) - 1:,} more" if len(unit.pieces) > 1 else ""
        print(f"unit {number:>6}  {first.path}{part}{more}")
    print(f"{len(plan.files):,} files in {len(plan.units):,} units; nothing was written")
    _print_ignored(plan.ignored)


def _print_left_out(store: TokenStore, ignored: dict[str, int]) -> None:
    if store.meta.num_quarantined:
        print(f"  quarantined {store.meta.num_quarantined:,} records; quarantine.jsonl says where and why:")
        for reason, count in list(quarantined(store).items())[:5]:
            print(f"  {count:>9,}  {reason}")
    _print_ignored(ignored)


def _print_ignored(ignored: dict[str, int]) -> None:
    if ignored:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(ignored.items()))
        print(f"  not read, being of no kind that is: {kinds}")


def store_facts(store: TokenStore) -> dict[str, Any]:
    return {
        "fingerprint": store.meta.fingerprint,
        **store.meta.model_dump(mode="json", exclude={"files", "parts"}),
        "parts": len(store.parts),
        "document_tokens": store.document_lengths(),
        "quarantine": quarantined(store),
    }


def _table(store: TokenStore) -> str:
    lines = [f"  {'domain':<16}{'documents':>12}{'text MB':>11}{'tokens':>15}{'tokens/byte':>13}{'parts':>7}"]
    counts = [sum(part.meta.domain == domain.name for part in store.parts) for domain in store.meta.domains]
    rows = [
        (d.name, d.num_documents, d.num_bytes, d.num_tokens, n) for d, n in zip(store.meta.domains, counts, strict=True)
    ]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    for name, documents, size, tokens, parts in rows:
        ratio = tokens / max(1, size)
        lines.append(f"  {name:<16}{documents:>12,}{size / 1e6:>11,.2f}{tokens:>15,}{ratio:>13.3f}{parts:>7,}")
    shares = ", ".join(f"{name} {value:,}" for name, value in store.document_lengths().items())
    return "\n".join([*lines, f"  tokens of a document: {shares}"])


def quarantined(store: TokenStore) -> dict[str, int]:
    """How many records each reason kept out, the most frequent first; what differs from line to line is cut off."""
    import json
    from collections import Counter

    file = store.path / "quarantine.jsonl"
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as lines:
        reasons = Counter(json.loads(line)["reason"].partition(":")[0].partition(";")[0] for line in lines)
    return dict(reasons.most_common())
