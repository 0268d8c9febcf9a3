"""Seeded faults in saving and loading: `python -m benchmarks.faults [--faults 100] [--seed 0] [--json]`.

Each training of two forked ranks meets one fault: ranks, writers or all killed with SIGKILL at a random moment, also
while loading; a disk that is full or slow for a while; a checkpoint truncated, flipped in one bit, with a file missing
or stale, or stale as a whole. Then it is resumed until it ends. No run may load a bad file, resume from older than the
newest sound checkpoint, or end otherwise than the undisturbed one, bit for bit. Some ten minutes on two cores; exit
code 1 when one did.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.campaign import options, report
from tests.train.campaigns import INTERVAL, faulty, undisturbed
from tests.train.forked import warm_up


def main() -> None:
    chosen = options("faults", __doc__, "faults", 100)
    warm_up()
    cases = []
    with tempfile.TemporaryDirectory(prefix="xgen-faults-") as scratch:
        expected = undisturbed(Path(scratch))
        for seed in range(chosen.seed, chosen.seed + chosen.count):
            case = faulty(seed, Path(scratch), expected)
            chosen.show(case)
            cases.append(case)
    facts = {"faults": len(cases), "interval": INTERVAL}
    sys.exit(report("faults", cases, facts, chosen.json))


if __name__ == "__main__":
    main()
