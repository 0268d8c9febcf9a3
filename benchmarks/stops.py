"""Random stops: `python -m benchmarks.stops [--stops 50] [--seed 0] [--json]`.

Trainings of two forked ranks with FSDP2 are told to stop at random moments and resumed, with other loader threads each
time, until all stops have happened. Every run has to end as the undisturbed one did, bit for bit: losses, data,
weights, optimizer, random states. A few minutes on two cores. Exit code 1 when one did not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.campaign import options, report
from tests.train.campaigns import stopped_often, undisturbed
from tests.train.forked import warm_up

_STOPS_A_RUN = 5


def main() -> None:
    chosen = options("stops", __doc__, "stops", 50)
    warm_up()
    cases, left, seed = [], chosen.count, chosen.seed
    with tempfile.TemporaryDirectory(prefix="xgen-stops-") as scratch:
        expected = undisturbed(Path(scratch))
        while left > 0:
            case = stopped_often(seed, Path(scratch), expected, min(left, _STOPS_A_RUN))
            chosen.show(case)
            cases.append(case)
            left -= int(case.what.split()[0])
            seed += 1
    sys.exit(report("stops", cases, {"stops": chosen.count - max(left, 0)}, chosen.json))


if __name__ == "__main__":
    main()
