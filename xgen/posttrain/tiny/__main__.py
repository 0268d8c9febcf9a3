"""`python -m xgen.posttrain.tiny OUT`: the planted data of jobs/tiny/sft.yaml, dpo.yaml and grpo.yaml."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xgen.data.errors import StoreError
from xgen.posttrain.tiny.corpus import write_corpus


def main() -> int:
    """Exit code: 0, 1 when it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m xgen.posttrain.tiny", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    try:
        write_corpus(options.out.resolve(), options.seed)
    except (StoreError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
