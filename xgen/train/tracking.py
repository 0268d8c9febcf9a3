"""A run's curves in TensorBoard or Weights & Biases, told by a process beside rank 0 that nothing waits for.

    python -m xgen.train.tracking RUN_DIR tensorboard|wandb

It follows `metrics/steps.jsonl` and `validation.jsonl` as they grow. How far it was told lies with the tracker's files
(`.told`): the next attempt goes on there, and a tracker that is asked for late gets all that came before. It ignores
the signals of a stop, and ends when its stdin or its parent does. What fails or hangs costs the tracker only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from xgen.runs import RunDir, write_atomic
from xgen.spec import Trained, load_resolved

TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}
_POLL = 1.0  # seconds
_LAST = 60  # seconds that it may take after the training has ended, should nobody end it before
_NICE = 10


class Tracker(Protocol):
    def back_to(self, step: int, tokens: int) -> None:
        """This step and those after it come again, or for the first time."""
        ...

    def tell(self, values: Mapping[str, float], step: int, tokens: int, when: float) -> None: ...

    def flush(self) -> None:
        """What was told is safe on return."""
        ...

    def close(self) -> None: ...


class Curves:
    """The records of a run, told in their order: a validation after the step that it followed."""

    def __init__(self, run: RunDir, job: Trained, tracker: Tracker, told: Path) -> None:
        self._tracker, self._told = tracker, told
        self._batch = {place.stage.name: place.stage.global_batch for place in job.places}
        known = json.loads(told.read_text()) if told.exists() else {}
        self._steps = _Lines(run.metrics_dir / "steps.jsonl", known.get("steps", 0))
        self._validations = _Lines(run.metrics_dir / "validation.jsonl", known.get("validation", 0))
        self._last: int | None = None  # step
        self._validated = -1  # the last of them that was

    def follow(self) -> bool:
        """Tell what was added; whether there was anything."""
        # In this order: of each validation the step has been read, too.
        validations = deque(self._validations.new())
        before, when = self._at, time.time()
        for record in self._steps.new():
            step, tokens = record["step"], record["tokens"]
            self._tell_validations(validations, step - 1 if self._last is None else self._last, when)
            if self._last is None or step <= self._last:
                self._tracker.back_to(step, tokens)
                self._validated = step - 1
            self._last, when = step, record["time"]
            self._tracker.tell(_values(record, self._batch), step, tokens, when)
        if self._last is not None:
            self._tell_validations(validations, self._last, when)
        for left in validations:  # without a step: it was all that an attempt had left to do
            self._tell_validation(left, when)
        if self._at == before:
            return False
        self._tracker.flush()
        write_atomic(self._told, json.dumps(self._at))
        return True

    @property
    def _at(self) -> dict[str, int]:
        return {"steps": self._steps.at, "validation": self._validations.at}

    def _tell_validations(self, records: deque[dict[str, Any]], last: int, when: float) -> None:
        """Those that followed the steps up to the last one; what goes back belongs to steps to come."""
        while records and self._validated < records[0]["step"] <= last:
            self._validated = records[0]["step"]
            self._tell_validation(records.popleft(), when)

    def _tell_validation(self, record: dict[str, Any], when: float) -> None:
        values = {f"validation/{name}": domain["loss"] for name, domain in record["domains"].items()}
        self._tracker.tell(values, record["step"], record["tokens"], when)


class _Lines:
    """Whole lines of a file that grows; a torn one at its end is cut by the next attempt."""

    def __init__(self, path: Path, at: int) -> None:
        self._path, self.at = path, at

    def new(self) -> Iterator[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self.at)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self.at += len(line)
                    yield json.loads(line)
        except FileNotFoundError:
            pass  # nothing was recorded yet


def _values(record: Mapping[str, Any], batch: Mapping[str, int]) -> dict[str, float]:
    nan = float("nan")
    return {
        "train/loss": float.fromhex(record["loss_hex"]),
        "train/grad_norm": nan if record["grad_norm"] is None else record["grad_norm"],
        "train/learning_rate": record["lr"],
        "train/tokens": record["tokens"],
        "train/tokens_per_second": batch.get(record["stage"], 0) / record["seconds"] if record["seconds"] else nan,
        **record.get("extra", {}),
    }


def public(job: Trained) -> dict[str, Any]:
    """The spec without what may be nobody else's."""
    return job.model_dump(mode="json", exclude={"env", "secrets"})


class TensorBoard:
    """Event files over steps, and over tokens in `by_tokens`. What comes again takes the place of what was there."""

    def __init__(self, job: Trained, run: RunDir, folder: Path) -> None:
        del run
        # Without torch, whose SummaryWriter is these two: 3 s and 300 MB less.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        self._by_step = EventFileWriter(str(folder))
        self._by_tokens = EventFileWriter(str(folder / "by_tokens"))
        self._by_step.add_event(event_pb2.Event(wall_time=time.time(), step=0, summary=_text("spec", public(job))))

    def back_to(self, step: int, tokens: int) -> None:
        for writer, at in ((self._by_step, step), (self._by_tokens, tokens)):
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            writer.add_event(self._event.Event(wall_time=time.time(), step=at, session_log=start))

    def tell(self, values: Mapping[str, float], step: int, tokens: int, when: float) -> None:
        for writer, at, prefix in ((self._by_step, step, ""), (self._by_tokens, tokens, "by_tokens/")):
            points = [self._summary.Summary.Value(tag=prefix + name, simple_value=v) for name, v in values.items()]
            summary = self._summary.Summary(value=points)
            writer.add_event(self._event.Event(wall_time=when, step=at, summary=summary))

    def flush(self) -> None:
        self._by_step.flush()
        self._by_tokens.flush()

    def close(self) -> None:
        self._by_step.close()
        self._by_tokens.close()


def _text(tag: str, content: dict[str, Any]) -> Any:
    """A text that TensorBoard shows as it is written."""
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    lines = yaml.safe_dump(content, sort_keys=False).splitlines()
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name="text", content=TextPluginData().SerializeToString())
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
    markdown = "\n".join(f"    {line}" for line in lines).encode()
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[markdown], tensor_shape=shape)
    metadata = summary_pb2.SummaryMetadata(plugin_data=data)
    value = summary_pb2.Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)
    return summary_pb2.Summary(value=[value])


class WandB:
    """One run under the run's name for all attempts. It takes nothing back: steps that come again are there twice."""

    def __init__(self, job: Trained, run: RunDir, folder: Path) -> None:
        import wandb

        assert job.sinks.wandb
        settings = job.sinks.wandb
        self._run: Any = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            id=run.name,
            name=run.name,
            resume="allow",
            dir=str(folder.parent),
            config=public(job),
            settings=wandb.Settings(console="off", silent=True),
        )
        # Our step as a value: W&B drops what comes with a step of its own below the last, as after a resume.
        self._run.define_metric("*", step_metric="step")

    def back_to(self, step: int, tokens: int) -> None:
        pass

    def tell(self, values: Mapping[str, float], step: int, tokens: int, when: float) -> None:
        self._run.log({**values, "step": step, "tokens": tokens, "time": when})

    def flush(self) -> None:
        pass  # its own process has it, and writes it to disk

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[str, Callable[[Trained, RunDir, Path], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def main() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    parent = os.getppid()
    run, name = RunDir(Path(sys.argv[1])), sys.argv[2]
    try:
        job = load_resolved(run.spec_file)
        assert isinstance(job, Trained)
        folder = run.metrics_dir / name
        folder.mkdir(exist_ok=True)
        tracker = _KINDS[name](job, run, folder)
        curves = Curves(run, job, tracker, folder / ".told")
        while not _over(parent):
            curves.follow()
        signal.alarm(_LAST)
        while curves.follow():
            pass
        tracker.close()
    except Exception as error:  # noqa: BLE001 - whatever a service or a full disk comes up with
        print(f"{TITLES[name]} is given up, the training goes on: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # no farewell of a service that has failed


def _over(parent: int) -> bool:
    """After a while: whether the training has ended."""
    return bool(select.select([sys.stdin], [], [], _POLL)[0]) or os.getppid() != parent


if __name__ == "__main__":
    main()
