"""What all tests share: the checkout, and how to run `xgen` as a person does."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.warm import call, is_as_new

ROOT = Path(__file__).resolve().parents[1]
# What others extend is no job by itself.
BASES, SPECS = (
    [
        p
        for p in sorted((ROOT / "jobs").rglob("*.yaml"))
        if ("base" in (p.stem, p.parent.name)) == base and p.stem != "pipeline"
    ]
    for base in (True, False)
)
PIPELINES = sorted((ROOT / "jobs").rglob("pipeline.yaml"))
# Where `make setup` installs all of slurm/packages.txt: what is missing there is a fault, and no reason to skip.
PROVISIONED = os.geteuid() == 0 and Path("/etc/debian_version").exists()
gives_away = pytest.mark.skipif(os.getuid() != 0, reason="gives a folder to somebody else: needs root")

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start (seen: `.ci/run &`).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def xgen(
    *arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own (most are forked from one that has imported it: tests/warm.py)."""
    environment = {**os.environ, **(env or {})}
    if is_as_new(environment):
        return call(arguments, cwd, environment, timeout)
    return subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# Those that take long come first: what is left when the processes run out of work must be short.
_FIRST = ("cluster", "images", "train", "posttrain", "evals", "data", "monitoring", "metrics", "engine")
_NICE = os.getpriority(os.PRIO_PROCESS, 0)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)


SLOW = tuple(line for line in (ROOT / "tests/slow.txt").read_text().splitlines() if line and line[0] != "#")


@pytest.hookimpl(tryfirst=True)  # before those that are marked so are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") or item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.timeout(3600))
        elif _place(item) == 0:
            item.add_marker(pytest.mark.timeout(600))  # many at once, in the time of the first


class _SaidAtOnce:
    """A line for each failure when it comes: whoever ends a suite early has no summary to read, and of what is run
    again nothing else tells why."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.outcome == "rerun":
            what = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr)).strip()
            writer = self._config.get_terminal_writer()
            word = "FAILED" if report.failed else "AGAIN"
            writer.line(f"\n{word} {report.nodeid} ({report.when}, {report.duration:.0f} s): {what[:300]}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a process of pytest-xdist
        config.pluginmanager.register(_SaidAtOnce(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What runs in one process under `-n 3`: a file, for its fixtures are shared; and a folder of which there is one
    thing on a machine: the dev SLURM, the container tools. (pytest-xdist 3.8's groups do nothing under pytest 9.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((folder for folder in ("tests/cluster/", "tests/images/") if file.startswith(folder)), file)

    config.option.loadscopereorder = False  # as they are collected
    return ByPlace(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The tests of the dev SLURM mostly wait. What they wait for goes first, so that others who compute do not make it
    late."""
    if os.geteuid() == 0:  # nobody else can take it back
        os.setpriority(os.PRIO_PROCESS, 0, _NICE if _place(item) == 0 else min(_NICE + 5, 19))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage looks at it again, and no rank that is forked writes to
    each page of it. With torch in the process a collection takes half a second; evaluations and trainings ask for many.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_personal_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the profiles of the person who runs the tests, nor their default cluster."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XGEN_CLUSTER", raising=False)
