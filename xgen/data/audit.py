"""What a run says it consumed, held against what its spec and its stores give: step by step, from the first on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from xgen.data.order import Samples
from xgen.data.proof import MODULUS, batch_digest
from xgen.spec import Trained

_CHUNK = 16  # samples that are read at once


@dataclass(frozen=True)
class Claim:
    """What the run recorded of one step: its first sample, and the digest of its samples (None: not recorded)."""

    stage: int
    step: int
    first_sample: int
    digest: int | None


@dataclass(frozen=True)
class Checked:
    """One step, recomputed. `total`: sum of the digests of the audited steps up to this one."""

    claim: Claim
    digest: int
    total: int

    @property
    def differs(self) -> bool:
        return self.claim.digest is not None and self.claim.digest != self.digest


def read_claims(steps_file: Path, job: Trained) -> list[Claim]:
    """The claims of `metrics/steps.jsonl`, by step; of a step that was trained twice the last one counts.

    Steps that are missing between the first and the last (a full disk costs records) are filled in without a digest.
    Raises OSError, and ValueError for a line that is no record.
    """
    found: dict[int, tuple[int, int | None]] = {}  # first sample and digest by step
    with steps_file.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break  # is being written
            try:
                record = json.loads(line)
                step, digest = int(record["step"]), str(record.get("data", ""))
                first = int(record.get("first_sample", (step - 1) * job.places[0].stage.sequences_per_step))
                found[step] = first, int(digest, 16) if digest else None
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{steps_file}: line {number} is no record of a step: {error}") from None
    claims: list[Claim] = []
    for step in range(min(found, default=1), max(found, default=0) + 1):
        place = job.place_after(step - 1)
        follows = bool(claims) and claims[-1].stage == place.index
        first = claims[-1].first_sample + place.stage.sequences_per_step if follows else 0
        claims.append(Claim(place.index, step, *found.get(step, (first, None))))
    return claims


def recompute(
    samples: Callable[[int], Samples], claims: Iterable[Claim], job: Trained, threads: int = 0
) -> Iterator[Checked]:
    """Read the samples of every step again, in order of steps, with `threads` (0: all cores) at once; `samples` gives
    those of a stage."""
    workers = threads or os.cpu_count() or 1
    total, waiting = 0, iter(claims)
    with ThreadPoolExecutor(workers) as pool:

        def digest(claim: Claim) -> int:
            end = claim.first_sample + job.places[claim.stage].stage.sequences_per_step
            starts = range(claim.first_sample, end, _CHUNK)
            source = samples(claim.stage)
            return sum(batch_digest(at, source.batch(at, min(_CHUNK, end - at))) for at in starts) % MODULUS

        # Some steps ahead, not all of a training at once.
        while batch := list(islice(waiting, 8 * workers)):
            for claim, found in zip(batch, pool.map(digest, batch), strict=True):
                total = (total + found) % MODULUS
                yield Checked(claim, found, total)
