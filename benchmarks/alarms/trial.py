"""One planted fault: what has to be told of it, where it has to be seen, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.alarms.lab import Lab
from benchmarks.alarms.watch import LabError, wait_for
from xgen.runs import RunDir


@dataclass
class Alarm:
    """An alert that is rightful: when it came, and when it went."""

    name: str
    labels: Mapping[str, str]
    planted: float
    fired: float | None = None
    resolved: float | None = None


@dataclass
class Trial:
    """`name` is what --only takes; `what` what is done; no alarm: the fault has to be silent."""

    name: str
    what: str
    lab: Lab
    runs: list[str] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    seen: dict[str, bool] = field(default_factory=dict)  # by "dashboard: panel"
    began: float = 0
    planted: float = 0
    ended: float = 0
    failure: str = ""
    wrong: list[str] = field(default_factory=list)

    def owns(self, run: RunDir) -> RunDir:
        self.runs.append(run.name)
        return run

    def plants(self) -> None:
        """What follows is the fault."""
        self.planted = time.time()

    def fires(self, name: str, seconds: float, **labels: str) -> Alarm:
        alarm = Alarm(name, labels, self.planted)
        self.alarms.append(alarm)
        told = wait_for(
            lambda: self.lab.watch.about(name, labels, "firing", self.planted), seconds, f"{name} {dict(labels)}"
        )
        alarm.fired = told.time
        return alarm

    def resolves(self, alarm: Alarm, seconds: float) -> None:
        since = alarm.fired or 0
        told = wait_for(
            lambda: self.lab.watch.about(alarm.name, alarm.labels, "resolved", since), seconds, f"end of {alarm.name}"
        )
        alarm.resolved = told.time

    def shows(
        self, uid: str, panel: str, is_it: Callable[[Mapping[str, str], float], Any], run: str = "", seconds: float = 15
    ) -> None:
        """A panel has a sample that a person would stop at."""
        place = f"{uid.removeprefix('xgen-')}: {panel}"

        def there() -> bool:
            return any(is_it(*sample) for sample in self.lab.watch.panel(uid, panel, run, self.planted))

        try:
            self.seen[place] = wait_for(there, seconds, place)
        except LabError:
            self.seen[place] = False

    def go(self, script: Callable[[Trial], None]) -> None:
        self.began = self.planted = time.time()
        try:
            script(self)
        except Exception as error:  # noqa: BLE001 - one fault that cannot be planted must not hide the others
            self.failure = f"{type(error).__name__}: {error}"
            for run in self.runs:
                self.lab.cluster.xgen("cancel", run)  # nobody else needs it
        self.ended = time.time()

    @property
    def passed(self) -> bool:
        told = all(alarm.fired and alarm.resolved for alarm in self.alarms)
        return told and all(self.seen.values()) and not self.failure and not self.wrong


@dataclass(frozen=True)
class Script:
    name: str
    what: str
    play: Callable[[Trial], None]
    hardy: bool = False  # what the last ones do is nothing to it
    last: bool = False  # it blinds or stops what the others need: one after the other, when they are done


def play(lab: Lab, scripts: list[Script], told: Callable[[Trial], None]) -> list[Trial]:
    """All of them: those that do not mind each other at once."""
    trials = [Trial(script.name, script.what, lab) for script in scripts]

    def one(trial: Trial, script: Script) -> None:
        trial.go(script.play)
        told(trial)

    threads = []
    for trial, script in zip(trials, scripts, strict=True):
        if not script.last:
            threads.append(threading.Thread(target=one, args=(trial, script), daemon=True))
            threads[-1].start()
            time.sleep(0.5)  # in this order
    for thread, script in zip(threads, (one for one in scripts if not one.last), strict=True):
        if not script.hardy:
            thread.join()
    for trial, script in zip(trials, scripts, strict=True):
        if script.last:
            one(trial, script)
    for thread in threads:
        thread.join()
    return trials


def judge(trials: list[Trial]) -> None:
    """Whose is each alert that came? What is nobody's is wrong, and told of the fault whose run or time it was."""
    if not trials:
        return
    for told in trials[0].lab.watch.told:
        if told.status != "firing" or any(told.is_about(a.name, a.labels) for t in trials for a in t.alarms):
            continue
        owner = next((t for t in trials if told.labels.get("run") in t.runs), None)
        if owner is None:  # of the cluster: the newest fault at that time
            before = [t for t in trials if t.planted <= told.time]
            owner = max(before, key=lambda t: t.planted) if before else trials[0]
        what = told.name + "".join(
            f" {k}={told.labels[k]}" for k in ("collector", "partition", "node") if k in told.labels
        )
        if what not in owner.wrong:
            owner.wrong.append(what)
