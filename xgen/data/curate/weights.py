"""weights.yaml of a regmix job: a layer of a pretrain spec, which curations read too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import yaml

from xgen.data.errors import StoreError
from xgen.spec.base import nearest
from xgen.spec.curate import Curate
from xgen.spec.regmix import MIXTURE

WEIGHTS_FILE = "weights.yaml"


def write_weights(weights: Mapping[str, float], said: str) -> str:
    """The text of the file; `said` becomes its comment. What has no share is left out."""
    shares = {name: weight for name, weight in weights.items() if weight}
    comment = "".join(f"# {line}\n" for line in said.splitlines())
    return comment + yaml.safe_dump({"data": {"mixtures": {MIXTURE: shares}}}, sort_keys=False)


def read_weights(file: Path) -> dict[str, float]:
    """By domain. Raises StoreError for what is no such file."""
    fix = f"name the {WEIGHTS_FILE} that a regmix job has written"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["mixtures"][MIXTURE]
        weights = {str(name): float(weight) for name, weight in found.items()}
    except OSError as error:
        raise StoreError(file, error.strerror or str(error), fix) from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError):
        raise StoreError(file, f"has no data.mixtures.{MIXTURE} of weights by domain", fix) from None
    if bad := next((name for name, one in weights.items() if not 0 <= one < math.inf), None):
        raise StoreError(file, f"{bad}: {weights[bad]} is no weight", "write 0 or more")
    if not any(weights.values()):
        raise StoreError(file, f"has no domain with a weight in data.mixtures.{MIXTURE}", fix)
    return weights


def with_weights(job: Curate) -> Curate:
    """The same with `balance: {regmix: FILE}` as the weights that the file has: mixtures follow from them, wherever it
    lies. Raises StoreError for a file that cannot be read, and for a domain that the curation does not know."""
    mixtures = dict(job.mixtures)
    for name, mixture in job.mixtures.items():
        if mixture.balance.regmix is None:
            continue
        file = Path(mixture.balance.regmix)
        weights = read_weights(file)
        if unknown := next((one for one in weights if job.domain_names and one not in job.domain_names), None):
            what = f"{unknown!r}, of mixtures.{name}, is no domain of the inputs"
            raise StoreError(file, what, nearest(unknown, job.domain_names))
        balance = mixture.balance.model_copy(update={"weights": weights, "regmix": None})
        mixtures[name] = mixture.model_copy(update={"balance": balance})
    return job.model_copy(update={"mixtures": mixtures})
