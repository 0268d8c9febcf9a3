"""`python -m xgen.data build --out DIR` and `verify DIR`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from xgen.data.build import MAX_BYTES, VOCAB_SIZE, WAIT, Build, build_tiny_store
from xgen.data.errors import StoreError
from xgen.data.progress import show_progress
from xgen.data.store import StoreMeta, TokenStore


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, 1 when the store is wrong or cannot be built, 2 for a wrong call, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return _verify(options.store, options.json) if options.command == "verify" else _build(options)
    except StoreError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        place = error.filename or (options.store if options.command == "verify" else options.out)
        print(f"{place}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m xgen.data", description="Token stores of real text.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the tiny store; does nothing when it is up to date")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the store will lie")
    build.add_argument("--vocab-size", type=int, default=VOCAB_SIZE, metavar="N", help="default: %(default)s")
    build.add_argument(
        "--max-bytes", type=int, default=MAX_BYTES, metavar="N", help="of text, over all domains; default: %(default)s"
    )
    build.add_argument(
        "--wait", type=float, default=WAIT, metavar="SECONDS", help="for another build; default: %(default).0f"
    )
    verify = commands.add_parser("verify", help="read a store and check every checksum")
    verify.add_argument("store", type=Path, metavar="DIR")
    for command in (build, verify):
        command.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def _build(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    with show_progress() as progress:
        build = build_tiny_store(
            options.out,
            vocab_size=options.vocab_size,
            max_bytes=options.max_bytes,
            wait=options.wait,
            progress=progress,
        )
    seconds = time.monotonic() - begin
    if options.json:
        facts = {"store": str(options.out), "written": build.written, "seconds": round(seconds, 2)}
        print(json.dumps(facts | build.store.meta.model_dump(mode="json") | build.corpus.model_dump(mode="json")))
        return 0
    state = f"built in {seconds:.1f}s" if build.written else "up to date"
    print(f"{options.out}  {state}")
    print("\n".join(_summary(build.store.meta) + _skipped(build)))
    return 0


def _verify(path: Path, as_json: bool) -> int:
    store = TokenStore.open(path)
    store.verify()
    if as_json:
        print(json.dumps({"store": str(path), "fingerprint": store.meta.fingerprint, "verified": True}))
    else:
        print(f"{path}  verified, {len(store.meta.files)} files, fingerprint {store.meta.fingerprint}")
    return 0


def _summary(meta: StoreMeta) -> list[str]:
    lines = [f"  {'domain':<12}{'documents':>10}{'text MB':>10}{'tokens':>12}"]
    for d in meta.domains:
        lines.append(f"  {d.name:<12}{d.num_documents:>10,}{d.num_bytes / 1e6:>10.2f}{d.num_tokens:>12,}")
    num_bytes = sum(domain.num_bytes for domain in meta.domains)
    lines.append(f"  {'all':<12}{meta.num_documents:>10,}{num_bytes / 1e6:>10.2f}{meta.num_tokens:>12,}")
    return lines


def _skipped(build: Build) -> list[str]:
    """What was left out, by name; empty files only as a count, the names are in corpus.json."""
    skipped = build.corpus.skipped
    empty = sum(item.reason == "empty" for item in skipped)
    lines = [f"  skipped {item.name}: {item.reason}" for item in skipped if item.reason != "empty"]
    return lines + ([f"  skipped {empty} empty files (corpus/corpus.json names them)"] if empty else [])


if __name__ == "__main__":
    sys.exit(main())
