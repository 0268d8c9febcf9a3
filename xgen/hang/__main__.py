"""`python -I -S xgen/hang CONFIG`: the watchdog of a rank, which starts it. Run by path, with a bare interpreter."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from xgen.hang.watchdog import main  # noqa: E402

if __name__ == "__main__":
    main()
