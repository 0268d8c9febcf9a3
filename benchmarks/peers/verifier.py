"""math-verify in a process of its own, as trainers call it: `python verifier.py FILE`. Prints JSON.

Runs in the peers' environment. FILE is a list of [reference, answer]. Each verdict is `verify(parse(reference),
parse(answer))` with its own time-outs, on the main thread; CPU time after a first pass over a few of them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from math_verify import parse, verify


def main() -> None:
    pairs = json.loads(Path(sys.argv[1]).read_bytes())
    for reference, answer in pairs[:50]:
        verify(parse(reference), parse(answer))
    began = time.process_time()
    verdicts = [bool(verify(parse(reference), parse(answer))) for reference, answer in pairs]
    print(json.dumps({"seconds": time.process_time() - began, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
