"""`hang:` in a spec."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from xgen.spec import Command
from xgen.spec.hang import Hang

JOB = {"kind": "command", "name": "job", "command": ["true"], "resources": {"time": "1m"}}


@pytest.mark.parametrize("text", ["auto", "never", "10m", "1h30m"])
def test_a_limit_is_read_back_as_it_is_stored(text: str) -> None:
    stored = Hang.model_validate({"limit": text}).model_dump(mode="json")
    assert stored["limit"] == text
    assert Hang.model_validate(stored) == Hang.model_validate({"limit": text})


@pytest.mark.parametrize("value", ["5", 5, False, "often", "0s", None, [1], -1])
def test_what_is_no_limit_is_told_what_to_write(value: object) -> None:
    with pytest.raises(ValidationError, match="write auto, never, or a duration such as 10m"):
        Hang.model_validate({"limit": value})


def test_a_command_has_no_limit_unless_the_spec_says_one() -> None:
    assert Command.model_validate(JOB).hang.seconds == {}
    assert Command.model_validate(JOB | {"hang": {"limit": "10m"}}).hang.seconds["command"] == 600
    with pytest.raises(ValidationError, match="a command has no steps to learn a limit from"):
        Command.model_validate(JOB | {"hang": {"limit": "auto"}})
