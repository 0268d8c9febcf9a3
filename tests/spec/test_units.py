"""Quantities in text: what is read back is what was written, and every wrong text says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from xgen.spec import units


@given(st.integers(0, 10**9))
def test_a_duration_that_is_written_is_read_back(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@given(st.integers(1, 2**40))
def test_a_length_that_is_written_is_read_back(count: int) -> None:
    assert units.parse_length(units.format_length(count)) == count
    assert [units.format_length(n) for n in (4096, 3 * 2**20, 1000)] == ["4k", "3M", "1000"]


@given(st.integers(1, 2**52))
def test_a_size_that_is_stored_is_read_back(count: int) -> None:
    adapter = TypeAdapter(units.Bytes)
    assert adapter.validate_python(adapter.dump_python(count, mode="json")) == count


@given(st.integers(1, 10**15))
def test_plain_numbers_are_read_back(count: int) -> None:
    for parse in (units.parse_tokens, units.parse_length, units.parse_steps, units.parse_rate):
        assert parse(str(count)) == parse(count) == count


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_duration, "1d12h", 129600),
        (units.parse_duration, "24h", 86400),
        (units.parse_duration, "90s", 90),
        (units.parse_duration, " 1H 30M ", 5400),
        (units.parse_duration, "0s", 0),
        (units.parse_tokens, "2T", 2 * 10**12),
        (units.parse_tokens, "2T tokens", 2 * 10**12),
        (units.parse_tokens, "400k", 400_000),
        (units.parse_tokens, "1.5B", 1_500_000_000),
        (units.parse_tokens, "10_000", 10_000),
        (units.parse_tokens, "1e9", 10**9),
        (units.parse_length, "4k", 4096),
        (units.parse_length, "256k", 262_144),
        (units.parse_length, "4M tokens", 4 * 2**20),
        (units.parse_steps, "2000 steps", 2000),
        (units.parse_steps, "1 step", 1),
        (units.parse_bytes, "6GB", 6 * 2**30),
        (units.parse_bytes, "6GiB", 6 * 2**30),
        (units.parse_bytes, "800 MB", 800 * 2**20),
        (units.parse_bytes, "2TB", 2 * 2**40),
        (units.parse_rate, "989T", 989e12),
    ],
)
def test_text_as_people_write_it(parse: Callable[[Any], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (units.parse_duration, 24, "24 is not a duration; write 24s, 24m or 24h"),
        (units.parse_duration, "24", "'24' is not a duration; write 24s, 24m or 24h"),
        (units.parse_duration, "2w", "'2w' is not a duration; write it like 90s, 5m, 24h or 1d12h"),
        (units.parse_duration, "", "'' is not a duration; write it like 90s, 5m, 24h or 1d12h"),
        (units.parse_duration, "-5m", "'-5m' is not a duration; write it like 90s, 5m, 24h or 1d12h"),
        (units.parse_duration, "5m1h", "'5m1h' is not a duration; write it like 90s, 5m, 24h or 1d12h"),
        (units.parse_duration, None, "None is not a duration; write it like 90s, 5m, 24h or 1d12h"),
        (units.parse_tokens, "2X", "'2X' is not a number of tokens; write it like 400k, 20B or 2T"),
        (units.parse_tokens, "-2T", "'-2T' is not a number of tokens; write it like 400k, 20B or 2T"),
        (units.parse_tokens, "many", "'many' is not a number of tokens; write it like 400k, 20B or 2T"),
        (units.parse_tokens, True, "True is not a number of tokens; write it like 400k, 20B or 2T"),
        (units.parse_tokens, 0.5, "0.5 is not a whole number of tokens; write it like 400k, 20B or 2T"),
        (
            units.parse_length,
            "4 h",
            "'4 h' is not a number of tokens; write it like 4096, 4k (4096), 256k or 4M tokens",
        ),
        (units.parse_steps, "2000 tokens", "'2000 tokens' is not a number of steps; write it like 2000 or 2000 steps"),
        (units.parse_bytes, 6, "6 has no unit; write 6GB or 6MB"),
        (units.parse_bytes, "6", "'6' has no unit; write 6GB or 6MB"),
        (units.parse_bytes, "6 days", "'6 days' is not a size; write it like 800MB, 6GB or 2TB"),
        (units.parse_rate, "fast", "'fast' is not a number of flops; write it like 989T"),
    ],
)
def test_a_wrong_text_says_what_to_write(parse: Callable[[Any], float], value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("annotation", [units.Tokens, units.Length, units.Bytes, units.Rate])
def test_nothing_of_a_thing_is_too_little(annotation: Any) -> None:
    with pytest.raises(ValidationError, match=r"'0k' is too small; write"):
        TypeAdapter(annotation).validate_python("0k")


@pytest.mark.parametrize("parse", [units.parse_tokens, units.parse_length, units.parse_bytes, units.parse_rate])
def test_a_number_beyond_every_float_is_a_mistake_too(parse: Callable[[Any], float]) -> None:
    with pytest.raises(ValueError, match="1e999"):
        parse("1e999GB" if parse is units.parse_bytes else "1e999")


_PARSERS = (units.parse_duration, units.parse_tokens, units.parse_length, units.parse_steps, units.parse_bytes)


@given(st.text(max_size=12) | st.integers() | st.floats() | st.none() | st.booleans())
def test_whatever_is_written_is_read_or_refused_with_its_value(value: object) -> None:
    for parse in _PARSERS:
        try:
            number = parse(value)
        except ValueError as error:
            assert str(error).startswith(repr(value))
            assert "; write" in str(error)
        else:
            assert number >= 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (1023, "1023B"), (2048, "2kB"), (3 * 2**29, "1.5GB"), (2**40, "1TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (5400, "1h30m"), (86400, "1d"), (1.4, "1s")])
def test_durations_for_people(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text
