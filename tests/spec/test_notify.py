"""Whom a spec may name, and that it cannot hold a secret."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xgen.spec.notify import Notify, SiteNotify

URL = "https://hooks.slack.com/services/T0/B0/s3cr3t"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"slack": URL}, "a URL is a secret"),
        ({"slack": {"file": URL}}, "that is a URL"),
        ({"webhook": {"file": "hook.url"}}, "'hook.url' is no absolute path"),
        ({"email": ["ann"]}, "'ann' is no address"),
        ({"email": ["a@b.org\nBcc: all@b.org"]}, "is no address"),
        ({"on": []}, "at least 1 item"),
        ({"on": ["always"]}, "'start', 'preemption', 'failure', 'hang' or 'finish'"),
    ],
)
def test_what_cannot_be_told_is_a_mistake_that_names_the_fix(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Notify.model_validate(keys)
    messages = [error["msg"] for error in raised.value.errors()]
    assert said in messages[0]
    assert "s3cr3t" not in "".join(messages)


def test_all_is_told_unless_the_spec_says_less() -> None:
    assert Notify(email=["ann@example.org"]).on == ["start", "preemption", "failure", "hang", "finish"]
    assert SiteNotify.model_validate({"smtp": {"host": "mail"}}).smtp
