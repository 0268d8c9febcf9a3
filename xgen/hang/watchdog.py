"""The process beside a rank: looks at how far it is, tells its node, and acts when nothing moves any more."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from xgen.hang.activity import Activity
from xgen.hang.beat import PERIOD, Beat, Local, read_beats
from xgen.hang.board import Board
from xgen.hang.config import Config
from xgen.hang.limits import Pace

_POLL = 1.0  # seconds between two looks
_TELL = 2.0  # seconds between two words to the first rank of the node
_ASLEEP = 5.0  # seconds that this process itself was not let run, after which the time counts for nobody
_NEAR = 0.9  # of a limit, from where on a watchdog asks every second whether another one has said it
_LOOKS = 0.05  # of a limit, between two looks for work that gives no sign
_ALIGN = 4.0  # seconds over which the ranks but 0 come later, so that one says it and the others hear it


class Watchdog:
    """Of one rank."""

    def __init__(self, config: Config) -> None:
        self._config, self._board = config, Board(config.board_fd)
        self._pace, self._declared = Pace(config.limits), config.hang_dir / "declared"
        self._local = Local(config.run_dir, config.attempt, config.node_id, gathers=config.local_rank == 0)
        self._poll = min(_POLL, config.limits.shortest / 8)
        self._late = 1.0 + _ALIGN * config.rank / config.world_size if config.rank else 0.0
        self._seen, self._looked = self._board.read(), time.monotonic()
        self._moved = self._looked  # when the last sign of progress came
        self._activity = Activity(config)
        self._next_activity = self._next_others = 0.0
        self._beat_at = self._looked + PERIOD
        self._talk_at = self._beat_at - 2 * _TELL
        self._ask_every = min(PERIOD, config.dump_time / 2)
        self._ask_at = self._looked + self._ask_every

    def run(self) -> None:
        """Until the rank has ended."""
        while os.getppid() == self._config.pid:
            time.sleep(self._poll)
            self.look()

    def look(self) -> None:
        now = time.monotonic()
        self._note(now)
        silent, limit = now - self._moved, self._pace.limit(self._seen.phase)
        if now >= self._talk_at:
            self._talk(now, silent)
        if now >= self._ask_at:  # of others that hang: it is they who have written by then
            self._ask_at = now + self._ask_every
            if self._declared.exists():
                self._act(silent, decides=False)
        if self._board.read().lost:
            self._act(silent, decides=self._declare())
        elif silent > limit / 2 and self._goes_on(now):
            self._moved = now
        elif silent > _NEAR * limit and self._declared.exists():
            self._act(silent, decides=False)
        elif silent > limit + self._late and not self._others_move(now, limit):
            self._act(silent, decides=self._declare())

    def _note(self, now: float) -> None:
        """What the board says now. Time in which this process was not let run (a job that was suspended, a machine that
        stood still) is nobody's silence."""
        slept = now - self._looked - self._poll
        if slept > _ASLEEP:
            self._moved += slept
        self._looked = now
        seen, before = self._board.read(), self._seen
        if seen.signs != before.signs:
            if seen.phase == before.phase:
                self._pace.add(seen.phase, now - self._moved, seen.signs - before.signs)
            self._seen, self._moved = seen, now
            self._activity.forget()

    def _goes_on(self, now: float) -> bool:
        """Whether there is work that gives no sign; looked for now and then, for it means to look at all processes."""
        if now < self._next_activity:
            return False
        phase = self._seen.phase
        self._next_activity = now + max(self._poll, _LOOKS * self._pace.limit(phase))
        return self._activity.goes_on(phase, now)

    def _others_move(self, now: float, limit: float) -> bool:
        """Whether another rank has moved within the limit, by the heartbeats: then this one waits for that, which is
        slow. Ranks of a command do not wait for each other."""
        if self._seen.phase == "command" or self._config.world_size == 1:
            return False
        if now < self._next_others:
            return True
        moved = [
            time.time() - beat.time + rank.silent
            for beat in read_beats(self._config.run_dir, self._config.attempt)
            for rank in beat.ranks
            if rank.rank != self._config.rank
        ]
        left = limit - min(moved, default=limit)
        self._next_others = now + min(max(left, _POLL), PERIOD)
        return left > 0

    def _talk(self, now: float, silent: float) -> None:
        """The first rank of a node hears the others, and makes the heartbeat now and then."""
        config, seen = self._config, self._seen
        if config.local_rank:
            self._talk_at = now + _TELL
        else:
            self._local.heard()
            if now < self._beat_at:
                return
            self._beat_at = now + PERIOD
        pace = self._pace.median(seen.phase)
        pace = None if pace is None else round(pace, 4)
        self._local.tell(Beat(config.rank, seen.step, seen.phase, round(silent, 1), pace, time.time()))
        if config.local_rank == 0:
            with suppress(OSError):  # a full disk, or one that is gone: the next one comes
                self._local.write(config.run_dir, config.node, config.attempt, config.job_id)

    def _declare(self) -> bool:
        from xgen.hang.verdict import declare

        try:
            return declare(self._config)
        except OSError as error:
            print(f"xgen: cannot record the hang: {error}", file=sys.stderr, flush=True)
            return False

    def _act(self, silent: float, decides: bool) -> None:
        from xgen.hang.summary import Stand
        from xgen.hang.verdict import carry_out

        config, seen = self._config, self._seen
        stand = Stand(config.rank, config.node, seen.phase, seen.step, seen.signs, round(silent), "", (), False)
        carry_out(config, stand, silent, decides)
        os._exit(0)  # the rank's end is this one's too; in uninterruptible sleep it does not come yet


def main() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Watchdog(Config.from_json(sys.argv[1])).run()
