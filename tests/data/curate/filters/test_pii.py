import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.data.curate.filters.pii import PiiFilter
from xgen.data.curate.filters.thresholds import Pii
from xgen.data.curate.filters.trace import Batch
from xgen.data.curate.texts import Texts


def masked(*texts: str, thresholds: Pii | None = None) -> list[str]:
    trace = PiiFilter(thresholds or Pii()).check(Batch(Texts.of(texts)))
    assert trace.changed is not None
    return trace.changed.texts.to_strings()


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("Write to jane.doe+x@mail.example.co.uk, or not.", "Write to <email>, or not."),
        ("mail <a@b.org>", "mail <<email>>"),
        ("my server is at 93.184.216.34:8080", "my server is at <ip>:8080"),
        ("call +49 30 1234567 now", "call <phone> now"),
        ("call (555) 234-5678 or 555-234-5678.", "call <phone> or <phone>."),
        ("+1 (212) 555 0123", "<phone>"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key <key> here"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "<key>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nend", "<key>\nend"),
        ("card 4111 1111 1111 1111!", "card <card>!"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <card>."),
        ("GB82WEST12345698765432", "<card>"),
    ],
)
def test_what_names_a_person_is_masked(text: str, after: str) -> None:
    assert masked(text, "nothing here") == [after, "nothing here"]


@pytest.mark.parametrize(
    "text",
    [
        "a @decorator, b@c, x @ y.z",
        "on 10.0.0.1, 192.168.1.1 and 127.0.0.1",  # private
        "version 1.2.3.4.5, or 300.1.1.1",
        "in 2023-04-05 there were 1,234,567 of 12345678",
        "pi is 3.14159265358979, e+12345678",
        "card 4111 1111 1111 1112",  # its sum is wrong
        "DE89 3704 0044 0532 0130 01",
        "ISBN 978-0-306-40615-7",
        "sk-learn and eyJ are words",
        "AKIA is short",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert masked(text) == [text]


def test_each_kind_is_counted_and_can_be_left_alone() -> None:
    text = "a@b.org c@d.org 93.184.216.34"
    trace = PiiFilter(Pii(ip=None)).check(Batch(Texts.of([text])))
    assert trace.changed is not None
    assert trace.changed.texts[0] == "<email> <email> 93.184.216.34"
    assert (trace.measures["email"][0], trace.measures["ip"][0], trace.measures["phone"][0]) == (2, 0, 0)
    assert trace.measures["per_kb"][0] == 2000 / len(text)
    assert trace.kept.all()


def test_documents_that_are_lists_of_addresses_go() -> None:
    text = "\n".join(f"user{number}@example.org" for number in range(50))
    trace = PiiFilter(Pii(max_per_kb=20)).check(Batch(Texts.of([text, "one a@b.org in a long text " + "word " * 100])))
    assert trace.kept.tolist() == [False, True]
    assert trace.reason(0).startswith("pii.max_per_kb: per_kb = 5")


@given(st.lists(st.sampled_from(["a@b.org ", "4111111111111111 ", "\u00e9 ", "1.1.1.1 ", "x", "+49 30 1234567 "])))
@settings(deadline=None)
def test_masking_again_changes_nothing(parts: list[str]) -> None:
    once = masked("".join(parts))[0]
    assert masked(once)[0] == once


def test_a_long_line_without_an_end_is_no_trap() -> None:
    began = time.process_time()
    masked("a" * 300_000 + "@", "a." * 100_000 + "@", "1 " * 200_000, "-----BEGIN PRIVATE KEY-----" * 5_000)
    assert time.process_time() - began < 5
