"""Secrets that this machine has and a command of the cluster needs. They go through the connection, nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xgen.cluster.secrets import read_secret, source_of
from xgen.remote.checkout import Checkout, mentioned
from xgen.spec import Secret, SpecError
from xgen.spec.layers import read_layers


def sent() -> Iterator[tuple[str, str]]:
    """Variables that the person lets the cluster have, for specs that lie there."""
    for name in os.environ.get("XGEN_SEND_ENV", "").split():
        if value := os.environ.get(name):
            yield source_of(Secret(env=name)), value


def held(checkout: Checkout, tree: str, home: str) -> Iterator[tuple[str, str]]:
    """The secrets of the specs that this machine has, as the cluster will ask for them: where the spec says that each
    is, and its value. What is not here is looked for there."""
    seen: set[str] = set()
    for raw in _raw(checkout):
        with suppress(ValidationError, OSError, ValueError):
            secret = Secret.model_validate(raw)
            source = source_of(_over_there(secret, tree, home))
            if source not in seen:
                seen.add(source)
                value = read_secret(_here(secret, checkout.root))
                if value and "\0" not in value:
                    yield source, value


def _here(secret: Secret, root: Path) -> Secret:
    if secret.file is None:
        return secret
    return secret.model_copy(update={"file": str(root / Path(os.path.expandvars(secret.file)).expanduser())})


def _over_there(secret: Secret, tree: str, home: str) -> Secret:
    if secret.file is None:
        return secret
    name = re.sub(r"\$(HOME\b|\{HOME\})", lambda _: home, secret.file)
    file = f"{home}/{name[2:]}" if name.startswith("~/") else str(Path(tree) / name)
    return secret.model_copy(update={"file": file})


def _raw(checkout: Checkout) -> Iterator[Any]:
    """As the specs that are named have them, and the steps of one that is a pipeline."""
    for spec in checkout.specs:
        for file in (spec, *(mentioned(spec, checkout.root) - {spec} if _has_steps(spec) else ())):
            secrets = _layers(file).get("secrets")
            yield from secrets.values() if isinstance(secrets, dict) else ()


def _has_steps(spec: Path) -> bool:
    return _layers(spec).get("kind") in ("pipeline", "sweep")


def _layers(file: Path) -> dict[str, Any]:
    try:
        return read_layers(file)[0]
    except SpecError:  # the cluster says it
        return {}
