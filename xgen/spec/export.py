"""The kind `export`: a checkpoint as Hugging Face's transformers loads it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xgen.spec.base import Count
from xgen.spec.job import Job


class Export(Job):
    """Write a checkpoint of a run that trains as a folder that `AutoModelForCausalLM.from_pretrained` loads."""

    kind: Literal["export"]
    run: str = Field(description="the run directory, or the name of a run below the cluster's run_root")
    step: Count | None = Field(default=None, ge=0, description="default: the newest complete checkpoint")
    out: str | None = Field(default=None, description="folder to write; default: export/step-N in the run directory")
    tokenizer: str | None = Field(
        default=None, description="tokenizer.json, or a folder with one; default: that of the run's data"
    )
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
