"""The command line of what writes a planted corpus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from xgen.data.errors import StoreError


def run_command(prog: str, about: str | None, write: Callable[[Path, int], None]) -> int:
    """`prog OUT [--seed N]`. Exit code: 0, 1 when it cannot be written."""
    parser = argparse.ArgumentParser(prog=prog, description=about)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    try:
        write(options.out.resolve(), options.seed)
    except (StoreError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(options.out)
    return 0
