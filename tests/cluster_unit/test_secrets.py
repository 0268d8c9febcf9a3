"""Where secrets come from, and that file and key open nothing alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xgen.cluster.secrets import read_secrets, seal, unseal
from xgen.runs import Refused, RunDir
from xgen.spec import Command, SpecError


def job(**secret: Any) -> Command:
    return Command.model_validate(
        {
            "kind": "command", "name": "a", "command": ["true"], "resources": {"time": "1m"},
            "secrets": {"TOKEN": secret},
        }
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "a-abc234")
    made.create()
    return made


def test_each_source_gives_the_value_without_its_last_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "from env")
    (tmp_path / "file").write_text("from file\n")
    (tmp_path / "file").chmod(0o600)
    assert read_secrets(job(env="MINE")) == {"TOKEN": "from env"}
    assert read_secrets(job(file=str(tmp_path / "file"))) == {"TOKEN": "from file"}
    assert read_secrets(job(command=["printf", "two\\nlines\\n"])) == {"TOKEN": "two\nlines"}


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ({"env": "NOT_THERE"}, "secrets.TOKEN.env: NOT_THERE is not set here; write export NOT_THERE=… first"),
        (
            {"file": "{at}/open"},
            "secrets.TOKEN.file: {at}/open is open to others (mode 644); write chmod 600 {at}/open",
        ),
        ({"file": "{at}/none"}, "secrets.TOKEN.file: [Errno 2] No such file or directory: '{at}/none'"),
        ({"command": ["false"]}, "secrets.TOKEN.command: false exited with 1"),
        ({"command": ["true"]}, "secrets.TOKEN.command: gives nothing"),
        ({"command": ["printf", "hush\\0"]}, "secrets.TOKEN.command: gives a NUL, which no environment can hold"),
    ],
)
def test_a_source_that_fails_is_named_and_its_value_is_not(tmp_path: Path, secret: dict[str, Any], said: str) -> None:
    (tmp_path / "open").write_text("hush")
    (tmp_path / "open").chmod(0o644)
    filled = {k: v.format(at=tmp_path) if isinstance(v, str) else v for k, v in secret.items()}
    with pytest.raises(SpecError) as caught:
        read_secrets(job(**filled))
    assert str(caught.value) == said.format(at=tmp_path)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("secret", [{}, {"env": "A", "file": "/b"}])
def test_one_source_is_asked_for(secret: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"write one of \{env: NAME\}, \{file: PATH\}, \{command: "):
        job(**secret)


def test_what_is_sealed_opens_with_its_key_only(run: RunDir) -> None:
    key = seal({"TOKEN": "hush, it's\nsecret"}, run)
    sealed = run.path / ".secrets"
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert b"hush" not in sealed.read_bytes()
    assert unseal(run, key) == {"TOKEN": "hush, it's\nsecret"}
    other = seal({"TOKEN": "later"}, run)
    with pytest.raises(Refused, match="is not of this submission; write xgen resume"):
        unseal(run, key)
    assert unseal(run, other) == {"TOKEN": "later"}
    sealed.unlink()
    with pytest.raises(Refused, match="No such file"):
        unseal(run, other)


def test_without_secrets_nothing_is_written(run: RunDir) -> None:
    assert seal({}, run) == ""
    assert not (run.path / ".secrets").exists()
