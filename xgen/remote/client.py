"""A command that the cluster's xgen runs: what it needs goes over, what it says comes back, and a connection that is
lost is made again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import xgen
from xgen.remote.checkout import Checkout, alone, find_checkout, inspect, sync
from xgen.remote.faults import RemoteError, no_copy
from xgen.remote.places import Places, follows, options_of
from xgen.remote.secrets import held, sent
from xgen.remote.ssh import Client, Connection, connect
from xgen.remote.wire import PROTOCOL, Attach, Greeting, Order, Request, quoted
from xgen.runs import new_run_id
from xgen.spec import Ssh

# Commands that change nothing: they end with the connection. Any other goes on, and is found again.
_LOOK = {
    "plan", "status", "watch", "show", "why", "top", "usage", "logs", "compare", "samples", "schema", "sweep",
    "lengths", "exporter",
}  # fmt: skip
_BY_HAND = {"exec", "shell"}
_PATIENCE = 600.0  # seconds for which a command that has changed something is looked for
_LONGEST = 30.0  # seconds between two tries to connect; a connection that held for longer was a good one
_UNKNOWN = {
    b"gone": "the command was ended there before it could say how it went",
    b"absent": "the command has not arrived there, or at another login node that does not share its home",
}
_ENV = ("NO_COLOR", "TERM", "COLORTERM", "XGEN_SCHEDULER_TIMEOUT", "XGEN_SUBMIT_PATIENCE")


def run(ssh: Ssh, words: Sequence[str], options: Sequence[str] = (), cluster: str | None = None) -> int:
    """Run a command on the cluster. Returns its exit code. `options`: what was written before it, for what it says
    about commands; `cluster`: the profile that led here, which has the same name there.

    Raises RemoteError, and SpecError for what is wrong with the checkout.
    """
    named = _named(words, cluster)
    checkout = find_checkout(_own(named), Path.cwd())
    errand = _Errand(Client(ssh), named, tuple(options), checkout, cluster)
    return errand.on_terminal() if _wants_terminal(named) else errand.run()


def ask(ssh: Ssh, words: Sequence[str], cluster: str | None, timeout: float) -> tuple[int, str, str]:
    """A command that only looks, and names nothing of this machine: its exit code, output and errors. Raises
    RemoteError. Nothing of it is left here after `timeout` seconds."""
    end = time.monotonic() + timeout
    errand = _Errand(Client(ssh, timeout), list(words), (), find_checkout(["status"], Path.cwd()), cluster)
    said = {"out": b"", "err": b""}
    with connect(errand.client, errand.greeting(copies=False)) as connection:
        connection.tell(errand.request(connection, errand.words))
        with connection.killed_after(end - time.monotonic()):
            while (found := connection.frame()) is not None:
                kind, content = found
                if kind == "end":
                    return int(content), said["out"].decode(), said["err"].decode(errors="replace")
                said[kind] += content
    if time.monotonic() > end:
        raise RemoteError(f"{ssh.said}: did not answer within {timeout:.0f} s", passes=True)
    raise RemoteError(f"{ssh.said}: the connection was lost", passes=True)


def _wants_terminal(words: Sequence[str]) -> bool:
    if words[0] in _BY_HAND:
        return "--help" not in options_of(words)
    return words[0] == "watch" and sys.stdout.isatty() and not {"--once", "--json", "--help"} & set(words)


def _named(words: Sequence[str], cluster: str | None) -> list[str]:
    """The command with the name of the profile in place of its file. `--cluster=FILE` becomes two words, but not in
    what may be the command of a task."""
    own = options_of(words)
    named: list[str] = []
    for word in own:
        if word.startswith("--cluster=") and words[0] not in _BY_HAND:
            named += ["--cluster", word.removeprefix("--cluster=")]
        elif word.startswith("--cluster=") and cluster:
            named.append(f"--cluster={cluster}")
        else:
            named.append(word)
        if cluster and len(named) > 1 and named[-2] == "--cluster":
            named[-1] = cluster
    return [*named, *words[len(own) :]]


def _own(words: Sequence[str]) -> list[str]:
    """The words that may name files of this machine: of `exec`, whose command names those of the task, the profile."""
    if words[0] not in _BY_HAND:
        return list(words)
    pairs = pairwise(options_of(words))
    return [words[0], *(word for pair in pairs if pair[0] == "--cluster" for word in pair)]


class _GoneError(RemoteError):
    """How the command ended is not to be had, however often one connects."""


@dataclass
class _Errand:
    """A command, and how far it has come."""

    client: Client
    words: list[str]
    options: tuple[str, ...]
    checkout: Checkout
    cluster: str | None
    places: Places | None = None
    session: str = ""
    told: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0})
    asked: bool = False  # the request has been sent: the command may have begun

    @property
    def said(self) -> str:
        return self.client.ssh.said

    def greeting(self, *, copies: bool) -> Greeting:
        return Greeting(
            protocol=PROTOCOL,
            version=xgen.__version__,
            folder=self.client.ssh.folder,
            copy_name=self.checkout.name,
            makes_copy=copies,
        )

    def request(self, connection: Connection, words: Sequence[str]) -> Request:
        tree, home = connection.hello.tree, connection.hello.home
        own = options_of(words)
        named = set(self.checkout.named) if tree else set()
        mapped = [self.checkout.over_there(w, tree) if w in named else w for w in own] + list(words[len(own) :])
        return Request(
            words=tuple(mapped),
            options=self.options,
            folder=self.checkout.folder(tree) if named else tree or home,
            env=self._environment(),
            session=self.session,
        )

    def _environment(self) -> dict[str, str]:
        env = {name: value for name in _ENV if (value := os.environ.get(name)) is not None}
        if not _wants_terminal(self.words):  # which says it of itself, and may change
            size = shutil.get_terminal_size()
            env |= {"COLUMNS": str(size.columns), "LINES": str(size.lines)}
            if sys.stdout.isatty() and "NO_COLOR" not in env:
                env["FORCE_COLOR"] = "1"
        default = os.environ.get("XGEN_CLUSTER", "")
        if default.endswith((".yaml", ".yml")) or "/" in default:  # a file of this machine
            default = self.cluster or ""
        if default:
            env["XGEN_CLUSTER"] = default
        if self.places:
            env["XGEN_LOG_PLACES"] = "1"
        return env

    def run(self) -> int:
        """A command whose output comes back in frames."""
        asks_for_help = "--help" in options_of(self.words)
        if self.words[0] not in _LOOK and not asks_for_help:
            self.session = f"{new_run_id()}{new_run_id()}"
        if self.words[0] == "logs" and not asks_for_help:
            self.places = Places(self.words)
        with ExitStack() as copy:
            if self.checkout.named:
                copy.enter_context(alone(self.checkout, self.said))
            try:
                return self._until_told(copy)
            except KeyboardInterrupt:
                if self.asked:
                    print(f"\n{self.go_on()}", file=sys.stderr)
                raise

    def _until_told(self, copy: ExitStack) -> int:
        tries = _Tries(self)
        while True:
            copies = bool(self.checkout.named) and not self.asked
            try:
                with connect(self.client, self.greeting(copies=copies)) as connection:
                    if self.asked and self.session:
                        connection.tell(Attach(session=self.session, out=self.told["out"], err=self.told["err"]))
                    else:
                        self._ask(connection, copies)
                    if not self.session:
                        copy.close()  # it has begun to read, and may go on for as long as a run does
                    tries.connected()
                    with _signals(connection):
                        code = self._listen(connection, tries)
                if code is not None:
                    return code
                tries.again(RemoteError(f"{self.said}: the connection was lost", passes=True))
            except _GoneError:
                raise
            except RemoteError as error:
                tries.again(error)

    def _ask(self, connection: Connection, copies: bool) -> None:
        words = self.places.words() if self.places else self.words
        request = self.request(connection, words)
        if copies:
            if connection.hello.error:
                raise no_copy(self.client.ssh, connection.hello.error)
            copied = inspect(self.checkout)
            connection.make_room((*copied.files, *copied.others))
            sync(self.client, self.checkout, copied, connection.hello.tree)
            request = request.model_copy(update={"copied": copied})
        secrets = [*sent()]
        if self.words[0] == "submit" and "--dry-run" not in self.words:
            secrets += held(self.checkout, connection.hello.tree, connection.hello.home)
        request = request.model_copy(update={"secrets": tuple(secrets)})
        self.asked = True
        connection.tell(request)

    def _listen(self, connection: Connection, tries: _Tries) -> int | None:
        """Until the command ends; None where the connection does."""
        while (found := connection.frame()) is not None:
            tries.progress()
            kind, content = found
            if kind == "end":
                if content in _UNKNOWN:
                    raise _GoneError(f"{self.said}: {_UNKNOWN[content]}; {self._look()}")
                connection.tell(Order(done=True))
                return int(content)
            self.told[kind] += len(content)
            shown = self.places.shown(content) if self.places and kind == "out" else content
            stream = sys.stdout if kind == "out" else sys.stderr
            stream.buffer.write(shown)
            stream.flush()
        return None

    def _look(self) -> str:
        again = " ".join(["xgen", *self.options, "status", *(["--cluster", self.cluster] if self.cluster else [])])
        return f"look what came of it before you write it again: {again}"

    def on_terminal(self) -> int:
        """A command that has this terminal, or this input."""
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        tries = _Tries(self)
        while True:
            try:
                with connect(self.client, self.greeting(copies=False)) as connection:
                    request = self.request(connection, self.words)
                tries.connected()
                code = self.client.on_terminal(quoted(request), terminal=terminal)
                if code != 255:
                    return code
                if self.words[0] != "watch":
                    raise RemoteError(f"{self.said}: the connection was lost, or the command ended with 255")
                print("\x1b[?1049l\x1b[?25h", end="", flush=True)  # what it can no longer say to the terminal
                tries.again(RemoteError(f"{self.said}: the connection was lost", passes=True))
            except RemoteError as error:
                if self.words[0] != "watch":
                    raise
                tries.again(error)

    def go_on(self) -> str:
        """What a person writes who has stopped it while there is no connection."""
        if self.session:
            return f"the command goes on at {self.said}; {self._look()}"
        words = self.places.words() if self.places else self.words
        return f"go on: {shlex.join(['xgen', *self.options, *words])}"

    @property
    def goes_on(self) -> bool:
        """Whether there is more of it than what was shown."""
        return bool(self.session or self.places)

    @property
    def may_go_on(self) -> bool:
        """Whether nothing is shown twice, and nothing done twice."""
        return bool(self.goes_on or self.words[0] == "watch" or not any(self.told.values()))


class _Tries:
    """To connect again, with longer and longer pauses."""

    def __init__(self, errand: _Errand) -> None:
        self._errand = errand
        self._since: float | None = None  # when the connection was lost without which nothing has come since
        self._pause = 1.0
        self._is_lost = False
        self._connected: float | None = None  # when, the last time

    def connected(self) -> None:
        if self._is_lost:
            print(f"{self._errand.said}: connected again", file=sys.stderr)
        self._is_lost, self._connected = False, time.monotonic()

    def progress(self) -> None:
        """Something has come: the next loss is another one."""
        self._since, self._pause = None, 1.0

    def again(self, error: RemoteError) -> None:
        """Wait. Raises RemoteError where that helps nobody."""
        errand = self._errand
        if self._connected is None:
            raise error
        if not error.passes:
            raise RemoteError(f"{error}; {errand.go_on()}") if errand.asked and errand.goes_on else error
        if not errand.may_go_on:
            raise RemoteError(f"{error}; nothing was changed: write it again")
        now = time.monotonic()
        if not self._is_lost and now - self._connected > _LONGEST:
            self.progress()
        if self._since is None:
            self._since = now
            print(f"{error}; connecting again", file=sys.stderr)
        self._is_lost = True
        endless = errand.words[0] == "watch" or (errand.words[0] == "logs" and follows(errand.words))
        if now - self._since > _PATIENCE and not endless:
            raise RemoteError(f"{error}, for {_PATIENCE:.0f} s; {errand.go_on()}")
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST)


@contextmanager
def _signals(connection: Connection) -> Iterator[None]:
    """While a command runs there, a signal to this process is one for it; the second Ctrl-C ends this one."""
    told: set[int] = set()

    def tell(number: int, _: Any) -> None:
        if number in told:
            raise KeyboardInterrupt
        told.add(number)
        connection.tell(Order(signal=number))

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
