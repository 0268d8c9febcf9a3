"""Each fact is told once, whoever looks; a hook that is broken costs a line, and shows no secret."""

from __future__ import annotations

import json
import multiprocessing
import os
import pwd
import socket
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.notify.conftest import TOKEN, Hook, Mails, make_run, profile, write_secret
from xgen.notify import Notifier, channels_of, claims
from xgen.notify.claims import tries
from xgen.notify.send import SendError, read_secret
from xgen.runs import AttemptOutcome, EventWriter, RunDir, write_atomic


def happen(run: RunDir) -> None:
    """A preemption, a crash, and the end."""
    host = EventWriter(run, "host", 1, "7")
    host.write("started", nodes="n[1-2]")
    EventWriter(run, "rank0", 1, "7").write("checkpoint_durable", step=1200)
    host.write("requeued", reason="preempted")
    again = EventWriter(run, "host", 2, "7")
    again.write("started", nodes="n3")
    (run.attempt_dir(2)).mkdir()
    outcome = AttemptOutcome(status="crashed", reason="rank 3: CUDA out of <memory>\nwhat & why", time=1.0)
    write_atomic(run.attempt_dir(2) / "outcome.json", outcome.model_dump_json())
    again.write("requeued", reason="crashed")
    last = EventWriter(run, "host", 3, "7")
    last.write("started", nodes="n3")
    last.write("finished")


TEXTS = [
    "told-aaaaaa has started on n[1-2], job 7\nnext: xgen watch told-aaaaaa",
    "told-aaaaaa was preempted at step 1,200; step 1,200 is saved, and it waits to go on\nnext: xgen why told-aaaaaa",
    "told-aaaaaa crashed at step 1,200: rank 3: CUDA out of <memory> what & why; step 1,200 is saved, and it is tried "
    "again\nnext: xgen why told-aaaaaa",
    "told-aaaaaa has finished at step 1,200, after 3 attempts\nnext: xgen show told-aaaaaa",
]


def test_a_webhook_gets_each_fact_once_as_json(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}})
    happen(run)
    notifier = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs"))
    told = notifier.look()
    assert [(one.fact, one.result) for one in told] == [
        ("started-1", "sent"), ("preempted-1", "sent"), ("crashed-2", "sent"), ("finished-3", "sent"),
    ]  # fmt: skip
    assert [one["text"] for one in hook.got] == TEXTS
    assert hook.got[2] == {
        "run": "told-aaaaaa", "user": hook.got[2]["user"], "project": "nlp", "cluster": "dev", "fact": "crashed-2",
        "occasion": "failure", "state": "crashed", "time": hook.got[2]["time"], "attempt": 2, "job_id": "7",
        "step": 1200, "durable_step": 1200, "reason": "rank 3: CUDA out of <memory> what & why", "nodes": "",
        "text": TEXTS[2], "command": "xgen why told-aaaaaa",
    }  # fmt: skip
    # Again by this sender, and by another.
    assert notifier.look() == []
    assert Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look() == []
    EventWriter(run, "host", 4, "9").write("failed", reason="no")
    assert [one.fact for one in notifier.look()] == ["failed-4"]
    assert len(hook.got) == 5


def test_a_chat_gets_text_that_holds_no_mention_and_no_link(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"slack": {"file": str(file)}, "on": ["failure"]})
    happen(run)
    Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look()
    (only,) = hook.got
    assert only.keys() == {"text"}
    assert "out of &lt;memory&gt; what &amp; why" in only["text"]
    assert only["text"].endswith("\n`xgen why told-aaaaaa`")


def test_mail_goes_through_the_profiles_server(tmp_path: Path, mails: Mails) -> None:
    run = make_run(tmp_path / "runs", notify={"email": ["ann@example.org", "bob@example.org"], "on": ["failure"]})
    happen(run)
    site = {"smtp": {"host": "127.0.0.1", "port": mails.port}, "sender": "xgen@example.org"}
    told = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs", notify=site)).look()
    assert [(one.channel, one.result) for one in told] == [("email", "sent")]
    (said,) = mails.got
    assert "mail FROM:<xgen@example.org>" in said
    assert "rcpt TO:<ann@example.org>" in said
    assert "rcpt TO:<bob@example.org>" in said
    assert "Subject: [xgen] told-aaaaaa crashed at step 1,200: rank 3: CUDA out of" in said
    assert "\r\nnext: xgen why told-aaaaaa\r\n" in said


def test_mail_of_a_user_whom_the_machine_does_not_know_comes_from_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    site = profile(tmp_path, notify={"email": ["ann@example.org"]})
    (channel,) = channels_of(site.notify, site, site=True)
    assert channel.sender.startswith(f"{os.geteuid()}@")


def test_the_profiles_own_hooks_hear_of_every_run(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    happen(make_run(tmp_path / "runs"))
    site = profile(tmp_path / "runs", notify={"slack": {"file": str(file)}, "on": ["finish"]})
    assert [one.channel for one in Notifier(tmp_path / "runs", "dev", site).look()] == ["site-slack"]


@pytest.mark.parametrize("status", [302, 403, 500])
def test_a_hook_that_refuses_is_tried_again_later_and_not_for_ever(
    tmp_path: Path, hook: Hook, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}, "on": ["finish"]})
    happen(run)
    hook.status = status
    notifier = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs"))
    said = f"HTTP {status}{' (it redirects)' if status == 302 else ''}"
    assert [one.result for one in notifier.look()] == [said]
    assert notifier.look() == []  # not at once
    monkeypatch.setattr(claims, "PAUSES", (0.0,) * 4)
    for _ in range(10):
        notifier.look()
    assert len(hook.got) == 5
    assert {one.result for one in tries(run)} == {said}
    assert "/elsewhere" not in hook.paths


def test_what_was_refused_once_is_sent_later(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}, "on": ["finish"]})
    happen(run)
    hook.status = 503
    notifier = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs"))
    notifier.look()
    hook.status = 200
    monkeypatch.setattr(claims, "PAUSES", (0.0,) * 4)
    assert [one.result for one in notifier.look()] == ["sent"]
    assert notifier.look() == []


def test_a_folder_as_the_file_of_a_secret_is_refused_and_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(SendError, match="Is a directory"):
        read_secret(str(tmp_path))
    assert tmp_path not in [one.resolve() for one in Path("/proc/self/fd").iterdir()]


def test_no_secret_is_in_what_fails_nor_in_the_run_directory(tmp_path: Path) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{TOKEN}"
        file = write_secret(tmp_path / "hook.url", url)
        run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}})
        happen(run)
        told = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look()
    # Two in a row: the others wait for the next look.
    assert [one.result for one in told] == ["Connection refused"] * 2
    for folder, _, files in os.walk(tmp_path / "runs"):
        assert all(TOKEN not in Path(folder, name).read_text() for name in files)


@pytest.mark.parametrize(
    ("url", "mode", "said"),
    [
        (f"ftp://host/{TOKEN}", 0o600, "its first line is no http:// or https:// URL"),
        (f"http://host/{TOKEN} with space", 0o600, "its first line is no http:// or https:// URL"),
        ("", 0o600, "its first line is empty"),
        (f"http://host/{TOKEN}", 0o644, "is open to others (mode 644); write chmod 600 "),
    ],
)
def test_a_file_without_a_url_uses_up_no_try(tmp_path: Path, url: str, mode: int, said: str) -> None:
    file = write_secret(tmp_path / "hook.url", url)
    file.chmod(mode)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}, "on": ["finish"]})
    happen(run)
    (told,) = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look()
    assert said in told.result
    assert TOKEN not in told.result
    assert tries(run) == []


def test_a_pipe_in_the_place_of_the_file_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hook.url", 0o600)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(tmp_path / "hook.url")}, "on": ["finish"]})
    happen(run)
    (told,) = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look()
    assert "hook.url is no regular file; write the path of one" in told.result


def _look(root: Path, start: Barrier) -> None:
    start.wait(60)
    Notifier(root, "dev", profile(root)).look()


def test_of_several_that_look_at_once_one_sends(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}})
    happen(run)
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)
    senders = [fork.Process(target=_look, args=(tmp_path / "runs", start)) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert [sender.exitcode for sender in senders] == [0] * 4
    assert sorted(one["fact"] for one in hook.got) == ["crashed-2", "finished-3", "preempted-1", "started-1"]


def test_a_sender_that_was_killed_is_taken_over_after_a_while(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}, "on": ["finish"]})
    happen(run)
    claimed = claims.claim(run, "finished-3", "webhook", 1e9)
    assert claimed is not None
    record = json.loads(claimed.read_text())
    assert claims.claim(run, "finished-3", "webhook", 1e9 + 500) is None
    assert record["result"] == "sending"
    assert [one.result for one in Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look()] == ["sent"]


def test_what_happened_long_ago_is_not_told(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}})
    line = {"time": 1e9, "run": run.name, "attempt": 1, "job_id": "7", "event": "finished", "writer": "host"}
    (run.events_dir / "host.jsonl").write_text(json.dumps(line) + "\n")
    assert Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs")).look() == []


def test_a_run_that_is_lost_is_told_once(tmp_path: Path, hook: Hook) -> None:
    file = write_secret(tmp_path / "hook.url", hook.url)
    run = make_run(tmp_path / "runs", notify={"webhook": {"file": str(file)}, "on": ["failure"]})
    EventWriter(run, "host", 1, "7").write("started")
    notifier = Notifier(tmp_path / "runs", "dev", profile(tmp_path / "runs"))
    for _ in range(2):
        notifier.look({run.name: "its supervisor is gone"})
    assert [one["state"] for one in hook.got] == ["lost"]
    assert hook.got[0]["command"] == f"xgen resume {run.name}"
