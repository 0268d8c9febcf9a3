"""A checkpoint that is scored: of a run, with the geometry that it was trained with last, or a Hugging Face folder.

What is read is verified before, by one shard for all: `evaluation/verified` says what was. No torch on import.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xgen.data.chat.template import ChatTemplate
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.errors import StoreError
from xgen.engine import EngineError
from xgen.evals.model import EngineModel
from xgen.evals.once import once
from xgen.evals.protocol import Model, Subject
from xgen.runs import Refused, RunDir
from xgen.spec import Evaluate, Preference, Rl, Sft, Trained

if TYPE_CHECKING:
    import tokenizers

    from xgen.engine.opened import Readable
    from xgen.model.hf_rope import Positions

Dtype = Literal["bfloat16", "float32"]
Tick = Callable[[int], None]
_RUN, _FOLDER = "checkpoints.run", "checkpoints.hf"
_FIX = "write a smaller at_once, or shorter lengths"


@dataclass(frozen=True)
class _Words:
    """A tokenizer, the ids that end an answer, and the template of prompts."""

    tokenizer: tokenizers.Tokenizer
    stop: tuple[int, ...]
    template: ChatTemplate | None


@dataclass(frozen=True)
class _Opened:
    """Weights to be read, how they turn positions, and where they are exported."""

    weights: Readable
    positions: Positions
    export: Callable[[Dtype], Path]


class OpenSubject:
    """`Subject`."""

    def __init__(self, name: str, step: int, words: _Words, opened: _Opened, job: Evaluate, device: str | None) -> None:
        self.name, self.step = name, step
        self.tokenizer, self.stop, self.template = words.tokenizer, words.stop, words.template
        self._opened, self._job, self._device = opened, job, device

    @cached_property
    def _model(self) -> Model:
        from xgen.engine.opened import open_engine

        weights, positions = self._opened.weights, self._opened.positions
        seq_len = max(self._job.longest, positions.seq_len)
        at_once = self._job.at_once or EngineModel.MOST_AT_ONCE
        engine = open_engine(
            weights, seq_len, positions.rope_theta, positions.rope_scaling, at_once, self._device, _FIX
        )
        return EngineModel(engine, self._job.at_once)

    def model(self) -> Model:
        """Raises Refused where memory is too little for the weights."""
        try:
            return self._model
        except EngineError as error:
            if error.retryable:
                raise
            raise Refused(f"{self.name}: {error}") from None

    def export(self, dtype: Dtype) -> Path:
        return self._opened.export(dtype)


def open_subject(job: Evaluate, run: RunDir, step: int | None, whole: RunDir, device: str | None = None) -> Subject:
    """The checkpoint of a step of `run`, or with None the folder `checkpoints.hf`; `whole` is the evaluation. `device`:
    default a GPU, where there is one. Raises Refused, also for what does not verify."""
    try:
        if step is not None:
            return _of_run(job, run, step, whole, device)
        return _of_folder(job, Path(job.checkpoints.hf or ""), device)
    except StoreError as error:
        raise Refused(str(error)) from None


def _of_run(job: Evaluate, run: RunDir, step: int, whole: RunDir, device: str | None) -> Subject:
    from xgen.model.hf_rope import Positions
    from xgen.train.source import complete_ones, job_of
    from xgen.train.weights import weights_of

    trained = job_of(run, _RUN)
    checkpoint = complete_ones(run, step, _RUN)[0]
    words = _words_of_run(job, trained)
    stage = trained.place_after(step - 1).stage
    opened = _Opened(
        weights_of(run, trained, checkpoint.folder, partial(_verify, whole)),
        Positions(stage.seq_len, stage.rope_theta, stage.rope_scaling),
        partial(_export, job, run, step, whole),
    )
    return OpenSubject(f"{run.name}@{step}", step, words, opened, job, device)


def _words_of_run(job: Evaluate, trained: Trained) -> _Words:
    import tokenizers

    from xgen.train.export_tokenizer import read_tokenizer

    found = read_tokenizer(trained, Path(job.tokenizer) if job.tokenizer else None)
    chat = None
    match job.template, trained:
        case "none", _:
            pass
        case "auto", Sft() | Preference():
            chat = ChatTokenizer.load(found.place, trained.data.template)
        case "auto", Rl():
            chat = ChatTokenizer.load(found.place, trained.prompts.template)
        case "auto", _:
            pass
        case file, _:
            chat = ChatTokenizer.load(found.place, file)
    stop = dict.fromkeys([*(chat.stop if chat else ()), *found.ends])
    template = chat.templates["default"] if chat else None
    return _Words(tokenizers.Tokenizer.from_str(found.text), tuple(stop), template)


def _of_folder(job: Evaluate, folder: Path, device: str | None) -> Subject:
    from xgen.model.hf import HuggingFaceError, HuggingFaceWeights
    from xgen.model.hf_rope import read_positions

    try:
        weights = HuggingFaceWeights(folder)
        positions = read_positions(folder)
    except HuggingFaceError as error:
        raise Refused(f"{_FOLDER}: {error}") from None
    file = job.template if job.template not in ("auto", "none") else None
    chat = ChatTokenizer.load(job.tokenizer or folder, file, default=False)
    chat.check_vocabulary(weights.model.vocab_size)
    template = chat.templates.get("default") if job.template != "none" else None
    words = _Words(chat.backend, tuple(dict.fromkeys([*chat.stop, *_ends(folder)])), template)
    return OpenSubject(str(folder), 0, words, _Opened(weights, positions, lambda _: folder), job, device)


def _ends(folder: Path) -> Iterator[int]:
    """What ends a generation, says the folder."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            ends = json.loads((folder / name).read_bytes()).get("eos_token_id")
            yield from ends if isinstance(ends, list) else [] if ends is None else [ends]


def _verify(whole: RunDir, folder: Path) -> None:
    """A checkpoint, of this run or of one that it began from."""
    from xgen.train.export import verify_checkpoint
    from xgen.train.manifest import manifest_fingerprint

    mark = whole.evaluation_dir / "verified" / f"{folder.parents[1].name}@{folder.name.removeprefix('step-')}"
    once(mark, manifest_fingerprint(folder), lambda: verify_checkpoint(folder, _show))


def _export(job: Evaluate, run: RunDir, step: int, whole: RunDir, dtype: Dtype) -> Path:
    from xgen.train.export import RECORD, export
    from xgen.train.manifest import manifest_fingerprint

    out = whole.evaluation_dir / "export" / f"step-{step}"
    mark = whole.evaluation_dir / "verified" / f"export-{step}"
    if not (out / RECORD).is_file():
        mark.unlink(missing_ok=True)
    tokenizer = Path(job.tokenizer) if job.tokenizer else None
    of = f"{manifest_fingerprint(run.checkpoints_dir / f'step-{step}')} {dtype} {tokenizer}"
    once(mark, of, lambda: export(run, step, out, tokenizer, dtype, _show))
    return out


@contextmanager
def _show(text: str) -> Iterator[Tick]:
    print(text, flush=True)
    yield lambda _: None
