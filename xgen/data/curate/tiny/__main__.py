"""`python -m xgen.data.curate.tiny --out DIR`: the raw corpus of jobs/tiny/curate.yaml."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xgen.data.curate.tiny.corpus import write_corpus
from xgen.data.errors import StoreError
from xgen.data.progress import show_progress
from xgen.spec.units import format_bytes, parse_bytes


def main() -> int:
    """Exit code: 0, 1 when it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m xgen.data.curate.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--bytes", default="210MB", metavar="SIZE", help="of text; default: %(default)s")
    options = parser.parse_args()
    try:
        with show_progress() as progress:
            write_corpus(options.out.resolve(), parse_bytes(options.bytes), progress=progress)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{options.out}  {format_bytes(size)} compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
