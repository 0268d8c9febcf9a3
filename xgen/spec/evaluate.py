"""The kind `evaluate`: checkpoints of a run, or a Hugging Face folder, on what a long-context model is judged by."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Strict
from xgen.spec.job import Array, Job, Resources
from xgen.spec.posttrain import check_names, on_disk, one_task
from xgen.spec.units import Length, Steps

RulerTask = Literal[
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
    "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2",
]  # fmt: skip
RULER_TASKS: tuple[RulerTask, ...] = get_args(RulerTask)
IN_ESSAYS = ("niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery")
_LENGTHS = [4096 << doubled for doubled in range(6)]


class Checkpoints(Strict):
    """What is evaluated. A run's name alone is its newest checkpoint."""

    run: str | None = Field(
        default=None, description="a run of any training: its directory, or its name below the cluster's run_root"
    )
    hf: str | None = Field(default=None, description="folder of a Hugging Face model, in place of `run`")
    steps: list[Steps] = Field(default=[], description="a step, or [STEP, …]; default: the newest checkpoint")
    every: Steps | None = Field(default=None, description="those of every so many steps; 1: all that there are")
    first: Steps = Field(default=0, description="of `every`: none before this step")
    last: Steps | None = Field(default=None, description="of `every`: none after this step; default: to the end")
    follow: bool = Field(
        default=False, description="wait for those that the training is yet to make, until it has ended"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | cls):
            raise ValueError(
                f"{value!r} names no checkpoint; write the name of a run, {{run, steps}}, or {{hf: FOLDER}}"
            )
        return {"run": value} if isinstance(value, str) else value

    @field_validator("steps", mode="before", json_schema_input_type=int | list[int])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.run is None) == (self.hf is None):
            said = "both `run` and `hf` given" if self.run else "nothing given"
            raise ValueError(f"{said}; write checkpoints: {{run: NAME}}, or checkpoints: {{hf: FOLDER}}")
        if self.hf and (self.follow or self.steps or self.every is not None):
            raise ValueError("hf: a folder has one state; leave out steps, every and follow")
        if self.every is None and (self.first or self.last is not None):
            raise ValueError("first and last are of `every`, which is missing; write e.g. every: 1000, or every: 1")
        if self.every is not None and self.steps:
            raise ValueError("steps and every are two choices; leave one out")
        if self.every == 0:
            raise ValueError("every: 0 takes none; write 1 for all checkpoints")
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last: {self.last} is before first: {self.first}; write {self.first} or more")
        if self.follow and not (self.steps or self.every):
            raise ValueError("follow: a training that goes on has no newest checkpoint; write every: 1, or steps")
        return self

    def takes(self, step: int) -> bool:
        """Whether a step is among those wanted; without `steps` and `every` the newest is, whichever that is."""
        if self.every is not None:
            return step % self.every == 0 and self.first <= step and (self.last is None or step <= self.last)
        return not self.steps or step in self.steps


def _lengths(value: list[int]) -> list[int]:
    if not value:
        raise ValueError("is empty; write e.g. [4k, 128k]")
    return sorted(set(value))


class RulerSuite(Strict):
    """RULER (arXiv 2404.06654): its tasks at each length."""

    tasks: list[RulerTask] = Field(default=list(RULER_TASKS), min_length=1)
    lengths: list[Length] = Field(default=_LENGTHS, description="tokens, the answer's room included")
    samples: Count = Field(default=500, ge=1, description="of each task at each length")
    seed: Count = Field(default=42, ge=0)
    haystack: str | None = Field(
        default=None, description="text, or a folder of .txt and .md, that hides the needles of five of the tasks"
    )
    qa_1: str | None = Field(default=None, description="question set in SQuAD's JSON")
    qa_2: str | None = Field(default=None, description="question set in HotpotQA's JSON")

    _sorted = field_validator("lengths")(_lengths)

    @model_validator(mode="after")
    def _inputs_are_named(self) -> Self:
        if self.haystack is None and (found := next((task for task in self.tasks if task in IN_ESSAYS), None)):
            raise ValueError(f"haystack is missing, and {found} hides its needles in one; name a text, or other tasks")
        for task in ("qa_1", "qa_2"):
            if task in self.tasks and getattr(self, task) is None:
                raise ValueError(f"{task} is missing: the question set of that task; name its file, or other tasks")
        return self


class NeedleMap(Strict):
    """One needle at a depth of a haystack: where in which length it is found."""

    lengths: list[Length] = Field(default=_LENGTHS)
    depths: Count = Field(default=11, ge=2, description="from the begin to the end, evenly")
    samples: Count = Field(default=10, ge=1, description="of each cell")
    seed: Count = Field(default=42, ge=0)
    haystack: str | None = Field(default=None, description="as in `ruler`; default: RULER's sentences of noise")

    _sorted = field_validator("lengths")(_lengths)


class Recall(Strict):
    """In-context recall: the value of one key in a JSON object of random keys and values (arXiv 2307.03172)."""

    lengths: list[Length] = Field(default=_LENGTHS)
    samples: Count = Field(default=100, ge=1)
    seed: Count = Field(default=42, ge=0)

    _sorted = field_validator("lengths")(_lengths)


class Perplexity(Strict):
    """Loss by position in held-out documents that are at least so long."""

    path: str = Field(description="file or folder of documents, as `xgen data build --input` takes them")
    length: Length = Field(description="tokens of each document that are read, up to 256k and beyond")
    documents: Count = Field(default=32, ge=1, description="or all that are long enough")
    seed: Count = Field(default=0, ge=0, description="of the choice among them")

    @field_validator("length")
    @classmethod
    def _some_are_predicted(cls, value: int) -> int:
        if value < 2:
            raise ValueError(f"{value}: the first token of a document is not predicted; write 2 or more")
        return value


class Harness(Strict):
    """Tasks of lm-evaluation-harness, on the exported checkpoint, without a network.

    `suite: report` are the columns of the xGen-small 4B model card, with shots and metrics that are our choice: the
    card states none (docs/evaluation.md).
    """

    suite: Literal["report"] | None = None
    tasks: dict[str, Count | None] = Field(
        default_factory=dict, description="{TASK: SHOTS}, besides those of the suite; null: as the task says"
    )
    python: str | None = Field(
        default=None, description="the interpreter of an environment with lm-eval; default: the job's own"
    )
    datasets: str | None = Field(
        default=None, description="folder that `xgen evals fetch` has filled; nothing is fetched while it runs"
    )
    include: str | None = Field(default=None, description="folder of tasks of yours, in lm-eval's YAML")
    model: Literal["hf", "vllm"] = Field(default="hf", description="what computes, in that environment")
    arguments: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="more for that model, e.g. {max_length: 8192}"
    )
    samples: Count | None = Field(default=None, ge=1, description="of each task; default: all")
    batch: Count = Field(default=8, ge=1, description="requests at the same time")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    chat: bool = Field(default=False, description="apply the tokenizer's chat template")

    @model_validator(mode="after")
    def _some_task(self) -> Self:
        if not (self.suite or self.tasks):
            raise ValueError("no task is named; write suite: report, or tasks: {arc_challenge: 25}")
        return self


class Evaluate(Job):
    """Score checkpoints. Step `score` is a job array that shares out the samples of every task, `report` one task."""

    kind: Literal["evaluate"]
    checkpoints: Checkpoints = Field(description="a run's name, {run, steps}, {run, every, follow}, or {hf: FOLDER}")
    tokenizer: str | None = Field(
        default=None, description="tokenizer.json, or a folder with one; default: that of the run's data, or of `hf`"
    )
    template: Literal["auto", "none"] | str = Field(
        default="auto",
        description="chat template that prompts are put into: a Jinja file, or none; auto: that of a post-training, or "
        "of the `hf` folder, and none for a pre-training",
    )
    ruler: RulerSuite | None = None
    needles: NeedleMap | None = None
    recall: Recall | None = None
    perplexity: dict[str, Perplexity] = Field(
        default_factory=dict, description="{NAME: {path, length}}; one at the short length shows what it lost there"
    )
    harness: Harness | None = None
    published: list[str] = Field(
        default_factory=list, description="other models whose published scores stand beside; default: all known"
    )
    array: Array = Field(default_factory=lambda: Array(shards=1), description="each takes every so manieth sample")
    at_once: Count = Field(
        default=0, ge=0, description="answers of a shard at a time; 0: as many as memory holds, up to 64"
    )
    cache: str | None = Field(
        default=None, description="folder for counts of tokens, for all runs; default: in the run directory"
    )
    single: Resources | None = Field(default=None, description="of `report`; default: one task of `resources`, no GPU")

    @field_validator("perplexity")
    @classmethod
    def _names(cls, value: dict[str, Perplexity]) -> dict[str, Perplexity]:
        return check_names(value) if value else value

    @model_validator(mode="after")
    def _something_to_score(self) -> Self:
        if not self.suites:
            raise ValueError(
                "nothing to score; write e.g. ruler: {tasks: [niah_single_1], lengths: [4k], samples: 100}"
            )
        if self.resources.world_size > 1:
            raise ValueError("resources: a shard is one task; write nodes: 1, gpus_per_node: 1, and more array.shards")
        return self

    @model_validator(mode="after")
    def _harness_has_them(self) -> Self:
        """What it scores is a folder as it is."""
        if self.harness and self.checkpoints.hf and self.tokenizer:
            raise ValueError("tokenizer: the harness takes that of checkpoints.hf; leave it out, or put it there")
        if self.harness and self.harness.chat and self.template not in ("auto", "none"):
            raise ValueError("harness.chat: it takes the template of what is scored, not `template`; leave one out")
        return self

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of what is asked for."""
        return tuple(name for name in ("ruler", "needles", "recall", "perplexity", "harness") if getattr(self, name))

    @property
    def longest(self) -> int:
        """Tokens of the longest sample that our own engine reads; 0 for the harness alone."""
        lists = [suite.lengths for suite in (self.ruler, self.needles, self.recall) if suite]
        return max(
            [*(length for some in lists for length in some), *(one.length for one in self.perplexity.values())],
            default=0,
        )

    @property
    def reads(self) -> dict[str, str]:
        """Files and folders that it reads, by key; the run is `checkpoints.run`."""
        paths = {"checkpoints.hf": self.checkpoints.hf, "tokenizer": self.tokenizer}
        if self.template not in ("auto", "none"):
            paths["template"] = self.template
        if self.ruler:
            paths |= {f"ruler.{key}": getattr(self.ruler, key) for key in ("haystack", "qa_1", "qa_2")}
        if self.needles:
            paths["needles.haystack"] = self.needles.haystack
        if self.harness:
            paths |= {f"harness.{key}": getattr(self.harness, key) for key in ("datasets", "include")}
        paths |= {f"perplexity.{name}.path": one.path for name, one in self.perplexity.items()}
        return on_disk(paths)

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return ("score", self.resources), ("report", one_task(self.resources, self.single))

    def array_of(self, stage: int) -> Array | None:
        return self.array if stage == 0 else None
