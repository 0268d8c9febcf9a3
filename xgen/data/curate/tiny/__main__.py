"""`python -m xgen.data.curate.tiny --out DIR`: the raw corpus of jobs/tiny/curate.yaml.

With `--check SPEC`: what a curation of it made of all that was planted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xgen.data.curate.tiny.check import check
from xgen.data.curate.tiny.corpus import write_corpus
from xgen.data.errors import StoreError
from xgen.data.progress import show_progress
from xgen.spec import Curate, SpecError, load_job
from xgen.spec.units import format_bytes, parse_bytes


def main() -> int:
    """Exit code: 0, 1 when it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m xgen.data.curate.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--bytes", default="210MB", metavar="SIZE", help="of text; default: %(default)s")
    parser.add_argument("--check", type=Path, metavar="SPEC", help="of a curation of DIR that has run")
    options = parser.parse_args()
    try:
        if options.check:
            return _check(options.out, options.check)
        with show_progress() as progress:
            write_corpus(options.out.resolve(), parse_bytes(options.bytes), progress=progress)
    except (StoreError, SpecError) as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{options.out}  {format_bytes(size)} compressed")
    return 0


def _check(raw: Path, spec: Path) -> int:
    job = load_job(spec).job
    if not isinstance(job, Curate):
        print(f"{spec}: kind: {job.kind} is no curation; name a spec of kind curate", file=sys.stderr)
        return 1
    for row in check(raw, job):
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
