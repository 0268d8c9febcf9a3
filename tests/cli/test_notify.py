"""`xgen notify` by hand and from a crontab, and what `xgen submit` refuses."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import HELLO, Project
from tests.notify.conftest import TOKEN, Hook, hook, make_run, write_secret
from tests.notify.test_look import TEXTS, happen

__all__ = ["hook"]


def test_it_sends_what_is_new_and_shows_what_was_sent(project: Project, tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    happen(make_run(project.runs, notify={"webhook": {"file": str(file)}, "on": ["failure"]}))
    done = project.xgen("notify", "--cluster", "local")
    assert (done.returncode, done.stdout, done.stderr) == (0, "told-aaaaaa  crashed-2  webhook  sent\n", "")
    assert [one["text"] for one in hook.got] == TEXTS[2:3]
    assert project.xgen("notify", "--cluster", "local").stdout == ""
    assert project.xgen("notify", "told", "--cluster", "local").stdout.split()[2:] == ["crashed-2", "webhook", "sent"]
    assert project.xgen("notify", "told", "--test", "--cluster", "local").returncode == 0
    assert hook.got[-1]["text"].startswith("told-aaaaaa has somebody to tell: this is a test\n")
    hook.status = 404
    failed = project.xgen("notify", "told", "--test", "--cluster", "local")
    assert (failed.returncode, failed.stderr) == (1, "told-aaaaaa  test  webhook  HTTP 404\n")


def test_a_hook_that_is_not_there_is_refused_before_anything_is_submitted(project: Project, tmp_path: Path) -> None:
    spec = project.path / "hello.yaml"
    spec.write_text(HELLO + f"notify: {{slack: {{file: {tmp_path}/none}}}}\n")
    done = project.xgen("submit", "hello.yaml", "--cluster", "local")
    assert done.returncode == 2
    assert done.stderr == f"hello.yaml: notify.slack.file: {tmp_path}/none: No such file or directory\n"
    spec.write_text(HELLO + "notify: {slack: {file: ~nobody-here/url}}\n")
    done = project.xgen("submit", "hello.yaml", "--cluster", "local")
    said = f"hello.yaml: notify.slack.file: {project.path}/~nobody-here/url: No such file or directory\n"
    assert (done.returncode, done.stderr) == (2, said)
    for written, said in (
        (f"'https://hooks.example/{TOKEN}'", "notify.slack: a URL is a secret"),
        (f"{{file: 'https://hooks.example/{TOKEN}'}}", "notify.slack.file: that is a URL"),
    ):
        spec.write_text(HELLO + f"notify: {{slack: {written}}}\n")
        done = project.xgen("submit", "hello.yaml", "--cluster", "local")
        assert done.returncode == 2
        assert said in done.stderr
        assert TOKEN not in done.stdout + done.stderr
    assert not project.runs.exists()
