"""Weights that a training did not save itself: the parameters of another run's checkpoint, or of a Hugging Face folder,
read one at a time and by every rank only where it has a part of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future
from torchtitan.components.checkpointer.base import MODEL, ModelWrapper

from xgen.model.hf import HuggingFaceError, HuggingFaceWeights, parameter_shapes
from xgen.model.lora import adapter_shapes, adapters_of, merge
from xgen.runs import Refused, RunDir
from xgen.runs.origin import Beginning, read_beginning
from xgen.spec import Lora, ModelSpec, Trained
from xgen.train.manifest import checksum, manifest_fingerprint
from xgen.train.source import job_of


class Weights(Protocol):
    """All parameters of a model, by torchtitan's names."""

    @property
    def model(self) -> ModelSpec: ...

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The whole parameter, rounded to `dtype`."""
        ...


class CheckpointWeights:
    """Those of a verified checkpoint. Nothing of the optimizer is read."""

    def __init__(self, folder: Path, model: ModelSpec, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """`shapes`: of what the checkpoint has; default: all parameters. Raises Refused when it has others."""
        self.model = model
        self.shapes = parameter_shapes(model) if shapes is None else shapes
        self.reader = FileSystemReader(folder)
        self._metadata = self.reader.read_metadata()
        self.reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        saved = {
            name.removeprefix("model."): tuple(getattr(entry, "size", ()))
            for name, entry in self._metadata.state_dict_metadata.items()
            if name.startswith("model.")
        }
        wanted = self.shapes
        if wrong := next((name for name in {**wanted, **saved} if wanted.get(name) != saved.get(name)), None):
            raise Refused(
                f"{folder} has {wrong} of {saved.get(wrong)}, and its spec wants {wanted.get(wrong)}: "
                "the spec is not the one that it was saved by; restore spec.yaml"
            )

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Rounded as it is read."""
        state = {f"model.{name}": torch.empty(self.shapes[name], dtype=dtype)}
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner(state, self._metadata, is_coordinator=True)
        self.reader.read_data(planner.create_local_plan(), planner).wait()
        return state[f"model.{name}"]


class MergedWeights:
    """Those that a checkpoint of adapters makes of the weights below them."""

    def __init__(self, base: Weights, folder: Path, lora: Lora) -> None:
        """Raises Refused when the checkpoint has other adapters."""
        self.model = base.model
        self._base, self._lora = base, lora
        self._adapters = CheckpointWeights(folder, base.model, adapter_shapes(base.model, lora))

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        a, b = adapters_of(name)
        if a not in self._adapters.shapes:
            return self._base.read(name, dtype)
        weight = self._base.read(name, torch.float32)
        return merge(
            weight, self._adapters.read(a, torch.float32), self._adapters.read(b, torch.float32), self._lora
        ).to(dtype)


def weights_of(run: RunDir, job: Trained, folder: Path, verify: Callable[[Path], None]) -> Weights:
    """Of a checkpoint of a run; adapters are merged into what the run began from. `verify` is asked of each checkpoint
    before it is read. Raises Refused, also when what it began from is gone or another."""
    verify(folder)
    if job.adapters is None:
        return CheckpointWeights(folder, job.model)
    beginning = read_beginning(run)
    if beginning is None:
        raise Refused(f"{run.name} has adapters, and {run.path / 'init.json'}, which says of what, is gone; restore it")
    return MergedWeights(_base(beginning, verify), folder, job.adapters)


def _base(beginning: Beginning, verify: Callable[[Path], None]) -> Weights:
    place = Path(beginning.path)
    if beginning.run is None:
        weights = open_hf(place)
        refuse_changed(beginning, hf_fingerprint([checksum(file) for file in hf_files(place, weights)]))
        return weights
    below = place / "checkpoints" / f"step-{beginning.step}"
    refuse_changed(beginning, manifest_fingerprint(below))
    parent = RunDir(place)
    return weights_of(parent, job_of(parent, "init.run"), below, verify)


def open_hf(folder: Path) -> HuggingFaceWeights:
    """Raises Refused."""
    try:
        return HuggingFaceWeights(folder)
    except HuggingFaceError as error:
        raise Refused(f"init.hf: {error}") from None


def hf_files(folder: Path, weights: HuggingFaceWeights) -> list[Path]:
    """Those that the model follows from."""
    return [folder / "config.json", *weights.files]


def hf_fingerprint(checksums: Iterable[str]) -> str:
    """From the checksum of each of the files."""
    return hashlib.sha256("\n".join(sorted(checksums)).encode()).hexdigest()


def refuse_changed(known: Beginning, fingerprint: str) -> None:
    """Raises Refused for weights that are not those that a run began from."""
    if known.fingerprint != fingerprint:
        said = "is no more what this run began from" if fingerprint else "is gone, from which this run began"
        raise Refused(f"init: {known} of {known.path} {said}; restore it, or submit a new run")


def load_weights(parts: list[torch.nn.Module], weights: Weights) -> None:
    """Into a model that is split over the ranks in any way, but for its adapters. Called by all of them together."""
    names = parameter_shapes(weights.model)
    reader = weights.reader if isinstance(weights, CheckpointWeights) else _Reader(weights)
    load({MODEL: Named(parts, names.__contains__)}, storage_reader=reader, planner=DefaultLoadPlanner())


class Named(ModelWrapper):
    """The entries of a model whose names are wanted."""

    def __init__(self, parts: list[torch.nn.Module], is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        super().__init__(parts)

    def _get_state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super()._get_state_dict().items() if self._is_wanted(name)}


class _Reader(StorageReader):
    """For torch.distributed.checkpoint, which knows what part of each tensor a rank has."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        for name, shape in parameter_shapes(self._weights.model).items():
            size = torch.Size(shape)
            whole = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            entries[f"{MODEL}.{name}"] = TensorStorageMetadata(TensorProperties(), size, [whole])
        return Metadata(entries)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            target = planner.resolve_tensor(item).detach()
            whole = self._weights.read(item.storage_index.fqn.removeprefix(f"{MODEL}."), target.dtype)
            target.copy_(narrow_tensor_by_index(whole, item.storage_offsets, item.lengths))
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_reader(self, *_: Any, **__: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003 - torch's
        return True
