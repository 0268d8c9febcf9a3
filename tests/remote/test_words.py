"""What needs no connection: places in logs, what goes over, and what the two ends tell each other."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from xgen.cluster.copied import Copied, make_copy, make_room, read_copied, take_in
from xgen.cluster.snapshot import inspect_code
from xgen.remote.checkout import Checkout, find_checkout, inspect, mentioned
from xgen.remote.places import Places, follows
from xgen.remote.wire import Attach, Order, Request, frame, line, parse, quoted, read_frame, read_hello, unquoted
from xgen.spec import SpecError


def test_a_log_goes_on_behind_the_last_line_that_was_whole() -> None:
    places = Places(["logs", "-f", "hello", "--tail", "5", "--rank=1"])
    assert places.words() == ["logs", "-f", "hello", "--tail", "5", "--rank=1"]
    assert places.shown(b"0: a\0001:5:0\n0: b") == b"0: a\n"
    assert places.shown(b"c\0001:9:0\n--- attempt 2\0002:0:0\n0: ha") == b"0: bc\n--- attempt 2\n"
    assert places.words() == ["logs", "-f", "hello", "--rank=1", "--after", "2:0:0"]
    assert places.shown(b"0: half\0002:8:0\n") == b"0: half\n"


@pytest.mark.parametrize(
    ("words", "again"),
    [
        ("logs -fn 50 hello", "logs -f hello --after 1:5:0"),
        ("logs -fn50 hello", "logs -f hello --after 1:5:0"),
        ("logs -n 50 hello -f", "logs hello -f --after 1:5:0"),
        ("logs --tail=5 --follow -- hello", "logs --follow --after 1:5:0 -- hello"),
    ],
)
def test_a_log_is_asked_for_again_without_what_said_where_to_begin(words: str, again: str) -> None:
    places = Places(words.split())
    places.shown(b"0: a\0001:5:0\n")
    assert places.words() == again.split()
    assert follows(words.split())


def test_a_frame_that_is_cut_is_the_end_of_the_connection() -> None:
    whole = frame("out", b"a\nb") + frame("err", b"") + frame("end", b"0")
    stream = io.BytesIO(whole)
    assert [read_frame(stream) for _ in range(4)] == [("out", b"a\nb"), ("err", b""), ("end", b"0"), None]
    for size in range(len(frame("out", b"a\nb"))):
        assert read_frame(io.BytesIO(whole[:size])) is None
    assert read_frame(io.BytesIO(b"Connection to host closed.\n")) is None


def test_a_message_of_another_version_is_no_message() -> None:
    request = Request(words=("submit", "a b.yaml"), options=(), folder="/", env={"A": "ä\n"})
    assert parse(line(request).rstrip(b"\n"), Attach, Request) == request
    assert unquoted(quoted(request)) == request
    assert set(quoted(request)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")
    for text in (b"", b"Hello {}", b'Order {"later": 1}'):
        with pytest.raises(ValueError, match=r"no message|later"):
            parse(text, Order)
    assert read_hello(io.BytesIO(b"welcome\nto atlas\n")) == (None, "welcome\nto atlas\n")


def test_what_a_spec_names_goes_along_but_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "base.yaml").write_text("extends: jobs/deeper.yml\n")
    (tmp_path / "jobs/deeper.yml").write_text("a: [1]\n")
    (tmp_path / "jobs/step.yaml").write_text("extends: none.yaml\n")
    (tmp_path / "token").write_text("x")
    (tmp_path.parent / "beside.yaml").write_text("")
    spec = tmp_path / "jobs/job.yaml"
    text = "extends: ../base.yaml\nsteps: {a: {spec: step.yaml}}\nsecrets: {A: {file: token}}\nb: ../../beside.yaml\n"
    spec.write_text(text)
    found = {str(file.relative_to(tmp_path)) for file in mentioned(spec, tmp_path)}
    assert found == {"jobs/job.yaml", "base.yaml", "jobs/deeper.yml", "jobs/step.yaml"}
    copied = inspect(find_checkout(["submit", "jobs/job.yaml"], tmp_path))
    assert (copied.files, copied.others) == ((), tuple(sorted(found)))


def test_a_word_names_the_same_file_in_the_copy(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/job.yaml").touch()
    words = ["submit", "job.yaml", "--set", "a.b=job.yaml", "--", "job.yaml"]
    inside = find_checkout(words, tmp_path / "jobs")
    assert (inside.root, inside.named, inside.folder("/far")) == (tmp_path, ("job.yaml",), "/far/jobs")
    assert inside.over_there("job.yaml", "/far") == "job.yaml"
    assert inside.over_there(f"{tmp_path}/jobs/job.yaml", "/far") == "/far/jobs/job.yaml"
    beside = find_checkout(
        ["logs", "--cluster", str(ROOT / "slurm/clusters/dev.yaml"), "-f", "/etc/hosts"], tmp_path / "jobs"
    )
    assert (beside.root, beside.named) == (tmp_path, ())
    with pytest.raises(SpecError, match=r"is outside of"):
        inside.over_there("../../x.yaml", "/far")
    assert find_checkout(["logs", "../../x.yaml"], tmp_path / "jobs").named == ()
    outside = find_checkout(["submit", f"{tmp_path.name}/jobs/job.yaml"], tmp_path.parent)
    assert (outside.root, outside.folder("/far")) == (tmp_path, "/far")
    assert outside.over_there(f"{tmp_path.name}/jobs/job.yaml", "/far") == "/far/jobs/job.yaml"
    assert Checkout(tmp_path, tmp_path, ()).name == outside.name


def test_a_copy_loses_what_the_checkout_lost_and_keeps_what_was_made_in_it(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    make_copy(root)
    (root / "a/b").mkdir(parents=True)
    for name in ("a/b/c.py", "d.py", "made"):
        (root / name).write_text("x")
    first = Copied(
        commit="c" * 40, files=("a/b/c.py", "d.py"), changed=("d.py",), untracked=(), num_bytes=2, diff="\xe9"
    )
    take_in(root, first)
    code = inspect_code(root)
    assert (code.commit, code.files, code.changed) == (first.commit, first.files, first.changed)
    assert code.held.diff == b"\xe9"
    take_in(root, first.model_copy(update={"files": ("d.py",)}))
    assert sorted(p.name for p in root.iterdir()) == [".git", "d.py", "made"]
    assert read_copied(root / ".git") is None


def copied(*names: str) -> Copied:
    return Copied(commit="c" * 40, files=names, changed=(), untracked=(), num_bytes=0, diff="")


def test_nothing_outside_of_a_copy_goes_with_it(tmp_path: Path) -> None:
    root, shared = tmp_path / "copy", tmp_path / "shared"
    make_copy(root)
    shared.mkdir()
    (root / "data").symlink_to(shared)
    for file in (shared / "x.txt", tmp_path / "beside"):
        file.write_text("x")
    take_in(root, copied("data/x.txt", "../beside", str(tmp_path / "beside"), "data"))
    take_in(root, copied())
    assert (shared / "x.txt").exists()
    assert (tmp_path / "beside").exists()
    assert not (root / "data").is_symlink()


def test_what_was_a_folder_makes_room_before_a_file_comes(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    make_copy(root)
    for name in ("was/one.py", "runs/a/event"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("x")
    take_in(root, copied("was/one.py"))
    make_room(root, ("was", "runs"))
    assert sorted(str(file.relative_to(root)) for file in root.rglob("*")) == [".git", "runs", "runs/a", "runs/a/event"]


def test_the_record_of_another_person_is_none(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    make_copy(root)
    take_in(root, copied("a"))
    record = tmp_path / ".copy.copied.json"
    record.rename(tmp_path / "elsewhere")
    record.symlink_to(tmp_path / "elsewhere")
    assert read_copied(root) is None


def test_a_name_that_is_no_text_is_refused_and_a_checkout_of_any_name_has_a_plain_copy(tmp_path: Path) -> None:
    root = tmp_path / "my project"
    root.mkdir()
    (root / "pyproject.toml").touch()
    (root / "job.yaml").touch()
    checkout = find_checkout(["submit", "job.yaml"], root)
    assert re.fullmatch(r"my_project-[0-9a-f]{10}", checkout.name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True, timeout=60)
    (root / os.fsdecode(b"a\xff.txt")).touch()
    with pytest.raises(SpecError, match=r"'a\\udcff\.txt': is no name in UTF-8; rename it, or let git ignore it"):
        inspect(checkout)
