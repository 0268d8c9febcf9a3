"""What torchtitan demands of its configuration and the spec does not know."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.train.conftest import SPEC
from xgen.runs import RunDir
from xgen.spec import Pretrain


@pytest.mark.parametrize(("seq_len", "num_chunks"), [(256, 8), (100, 4), (63, 1)])
def test_loss_is_computed_in_equal_parts_at_any_seq_len(
    _warm: None, tmp_path: Path, seq_len: int, num_chunks: int
) -> None:
    from xgen.train.config import trainer_config

    spec = deepcopy(SPEC)
    spec["stages"][0] |= {"seq_len": seq_len, "global_batch": seq_len, "tokens": seq_len}  # type: ignore[index]
    job = TypeAdapter(Pretrain).validate_python(spec)
    assert trainer_config(job, RunDir(tmp_path)).loss.num_chunks == num_chunks
