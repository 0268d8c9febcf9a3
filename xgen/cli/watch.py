"""`xgen watch`: what runs do now, live in a terminal; elsewhere one frame."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import ClusterOption, JsonOption, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.spec import Profile
    from xgen.watch.screen import Screen


def command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs: names, or their first letters.", metavar="[RUN]...", autocompletion=completion.runs),
    ] = None,
    cluster: ClusterOption = None,
    every: Annotated[float, typer.Option("--every", metavar="S", min=1, max=3600, help="Seconds between frames.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as without a terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show all runs that have not ended, or some, on one screen: a line each, the worst first, and what is wrong. Of a
    pipeline that is named, the runs of its steps.

    A line has the phase now, the step and its share of the plan, the loss over all steps, tokens/s and their share of
    what the plan has, and the age of the newest durable checkpoint. `!` means that somebody has to do something, `?`
    that it is worth a look. The scheduler is asked every 30 seconds at most, whatever --every says. While it runs, it
    sends what specs and the profile want told (docs/notifications.md).
    """
    from xgen.cluster.pipeline import each_step
    from xgen.spec import find_profile, load_profile
    from xgen.watch.screen import Screen
    from xgen.watch.terminal import show_live, show_once

    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    chosen = [one for text in runs or () for one in each_step(find_run(text, cluster))]
    root = chosen[0].path.parent if chosen else Path(profile.run_root)
    if any(run.path.parent != root for run in chosen):
        usage("these runs lie in several folders; watch those of one at a time")
    screen = Screen(root, name, [run.name for run in chosen] or None)
    if as_json:
        print_json(screen.facts())
        return
    if once or not sys.stdout.isatty():
        show_once(screen)
        return
    show_live(screen, every, _Messages(root, name, profile, screen).send)


class _Messages:
    """Sends what is new, in a thread that holds up no frame, twice a minute."""

    def __init__(self, run_root: Path, cluster: str, profile: Profile, screen: Screen) -> None:
        from xgen.notify import Notifier

        self._notifier, self._screen = Notifier(run_root, cluster, profile), screen
        self._next = 0.0
        self._thread: threading.Thread | None = None

    def send(self) -> None:
        if time.monotonic() < self._next or (self._thread and self._thread.is_alive()):
            return
        self._next = time.monotonic() + 30.0
        self._thread = threading.Thread(target=self._notifier.look, args=(self._screen.lost(),), daemon=True)
        self._thread.start()
