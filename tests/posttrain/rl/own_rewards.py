"""Rewards of a user."""

from __future__ import annotations


def one(prompt: str, answer: str, record: object) -> float:
    return 1.0


def broken(prompt: str, answer: str, record: object) -> float:
    raise ValueError("my bug")
