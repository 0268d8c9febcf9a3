"""How an image is named: what is written is read back, and what docker would refuse is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xgen.spec.image import Reference, is_registry_reference, parse_reference

_PART = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda s: len(s) < 40)
_REPOSITORY = st.lists(_PART, min_size=1, max_size=4).map("/".join)
_HOST = st.from_regex(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[0-9]{1,5})?", fullmatch=True)
_REGISTRY = _HOST | st.sampled_from(["localhost", "localhost:5000", "127.0.0.1:5000"])
_TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True)
_DIGEST = st.text(string.hexdigits.lower()[:16], min_size=64, max_size=64).map("sha256:{}".format)


@settings(max_examples=30)  # texts of a pattern are slow to draw
@given(_REGISTRY, _REPOSITORY, _TAG, _DIGEST)
def test_what_is_written_is_read_back(registry: str, repository: str, tag: str, digest: str) -> None:
    tagged = Reference(registry, repository, tag, "")
    pinned = tagged.with_digest(digest)
    for reference in (tagged, pinned):
        assert parse_reference(str(reference)) == reference
        assert parse_reference(f"docker://{reference}") == reference
        assert is_registry_reference(str(reference))
    assert parse_reference(f"{tagged}@{digest}").digest == digest


@given(st.text(max_size=60))
@example("a@sha256:" + "0" * 63)
@example("nvcr.io/x:1\n")
@example("x:1\n")
def test_any_text_is_a_reference_or_an_error_that_names_it(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ValueError as error:
        assert repr(text) in str(error)
        assert "write " in str(error)
    else:
        assert parse_reference(str(reference)) == reference
        assert not any(c.isspace() for c in str(reference))


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("nvidia/cuda:12.8", "docker.io/nvidia/cuda:12.8"),
        ("nvcr.io/nvidia/pytorch:25.06-py3", "nvcr.io/nvidia/pytorch:25.06-py3"),
        ("localhost/x", "localhost/x:latest"),
        ("host:5000/x", "host:5000/x:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
    ],
)
def test_short_names_are_what_docker_takes_them_for(text: str, whole: str) -> None:
    assert str(parse_reference(text)) == whole


@pytest.mark.parametrize("text", ["nvcr.io/Upper/x", "x:", "x@sha256:12", "-x:1", "a//b:1", "x:.1", "a b:1", ""])
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a name in image_dir"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["trainer", "trainer.sqsh", "team/trainer.sqsh", "./a:b", "/x/a@b", "~/x:1", "../x"])
def test_names_and_paths_are_no_references(text: str) -> None:
    assert not is_registry_reference(text)
