"""The kind `regmix`: weights of the domains of a mixture, from the losses of many small trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from xgen.spec.base import Count, Number
from xgen.spec.job import Array, Job, Resources
from xgen.spec.pretrain import Pretrain, Share
from xgen.spec.units import Tokens

LEAST_PROXIES = 10  # two for each fold that is held out
MIXTURE = "regmix"  # its name in `data.mixtures`
_OF_THE_JOB = {"kind", *Job.model_fields}


class Regmix(Job):
    """Train small proxies on mixtures that are drawn, fit their losses, propose the weights of least loss (RegMix,
    arXiv 2407.01492). Step `proxies` is a job array, `fit` a job of one task."""

    kind: Literal["regmix"]
    out: str = Field(description="folder of weights.yaml, the report and the proxies")
    proxy: Pretrain = Field(
        description="a pretrain spec, or `extends` of one: one stage, with `validation`. Its mixture is drawn; name, "
        "resources, container and whatever else every job has are those of this job"
    )
    num_proxies: Count = Field(default=512, ge=LEAST_PROXIES, description="more of them later keep those trained")
    target: dict[str, Annotated[Number, Field(gt=0)]] = Field(
        default_factory=dict,
        description="{DOMAIN: WEIGHT} of the validation store: the loss that is to be low; default: of all alike",
    )
    corpus: dict[str, Tokens] = Field(
        default_factory=dict, description="{DOMAIN: TOKENS} that the training will have; default: as the proxy's stores"
    )
    tokens: Tokens | None = Field(
        default=None, description="of the training that the weights are for: bounds each by `max_epochs`; default: none"
    )
    max_epochs: Number = Field(default=4, gt=0, description="of that training over a domain")
    max_epochs_of: dict[str, Annotated[Number, Field(gt=0)]] = Field(default_factory=dict, description="by domain")
    array: Array = Field(default_factory=lambda: Array(shards=1), description="each trains every so manieth proxy")
    single: Resources | None = Field(default=None, description="of `fit`; default: one task of `resources`")
    seed: Count = Field(default=0, ge=0, description="of the mixtures")

    @field_validator("proxy", mode="before")
    @classmethod
    def _is_no_job_by_itself(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = {key: one for key, one in value.items() if key not in _OF_THE_JOB}
        if isinstance(data := own.get("data"), dict):
            own["data"] = {key: one for key, one in data.items() if key != "mixtures"}
        if isinstance(stages := own.get("stages"), list):
            own["stages"] = [_without(stage, "mixture", "resources") for stage in stages]
        return own | {"kind": "pretrain", "name": "proxy", "resources": {"time": "1h"}}  # until the job's own are known

    @field_serializer("proxy", mode="wrap")
    def _without_the_job(self, value: Pretrain, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: one for key, one in handler(value).items() if key not in _OF_THE_JOB}

    @field_validator("proxy")
    @classmethod
    def _runs_as_the_job_does(cls, value: Pretrain, info: ValidationInfo) -> Pretrain:
        if len(value.stages) > 1:
            raise ValueError(f"stages: a proxy has one, and here are {len(value.stages)}; write one")
        if value.validation is None:
            raise ValueError("validation is missing: its losses are what is fitted; write validation: {store: FOLDER}")
        if value.data.packing == "none":
            raise ValueError("data.packing: none takes no mixture; write best_fit")
        return value.model_copy(update={key: one for key, one in info.data.items() if key in Job.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _single_is_one_task(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(base := value.get("resources"), dict):
            return value
        if isinstance(single := value.get("single"), dict):
            return value | {"single": base | {"nodes": 1, "gpus_per_node": 0} | single}
        return value

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.max_epochs_of and self.tokens is None:
            raise ValueError("max_epochs_of bounds nothing without `tokens`; write tokens: 2T, of the training planned")
        if self.array.shards > self.num_proxies:
            most = self.num_proxies
            raise ValueError(
                f"array.shards: {self.array.shards} are more than the {most} proxies; write {most} or less"
            )
        if self.single and self.single.world_size > 1:
            raise ValueError("single: the fit is one task; write nodes: 1, gpus_per_node: 0")
        return self

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        one_task = {"nodes": 1, "gpus_per_node": min(1, self.resources.gpus_per_node)}
        return ("proxies", self.resources), ("fit", self.single or self.resources.model_copy(update=one_task))

    def array_of(self, stage: int) -> Array | None:
        return self.array if stage == 0 else None

    def proxy_on(self, weights: Mapping[str, float]) -> Pretrain:
        """The spec of a proxy; domains without a weight are left out."""
        shares = {name: Share(weight=weight) for name, weight in weights.items() if weight}
        return self.proxy.model_copy(
            update={
                "data": self.proxy.data.model_copy(update={"mixtures": {MIXTURE: shares}}),
                "stages": [self.proxy.stages[0].model_copy(update={"mixture": MIXTURE})],
            }
        )


def _without(stage: Any, *names: str) -> Any:
    return {key: one for key, one in stage.items() if key not in names} if isinstance(stage, dict) else stage
