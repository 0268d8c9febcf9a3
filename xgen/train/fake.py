"""One rank of a stage, built and stepped without the others, a GPU or memory: what a real spec takes on each.

    python -m xgen.train.fake jobs/9b/pretrain.yaml --stage 3 --ranks 512 --step

torch's fake communication stands in for the other ranks, fake tensors for the data, so that a configuration for
hundreds of GPUs cannot rot unseen. The trainer's own parts are built as its constructor builds them. What differs from
a GPU: nothing is compiled, and the allocator's gaps, NCCL's buffers and CUDA's context are not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from xgen.model import share_rope_tables  # before any other module of torchtitan

import torch  # isort: skip
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.tensor import DTensor
from torchtitan.config.override import apply_overrides
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils

from xgen.runs import Refused, RunDir
from xgen.spec import Place, Pretrain, Problem, SpecError, Stage, Trained, Tuned, load_job
from xgen.train.config import trainer_config
from xgen.train.learnt import every_token
from xgen.train.trainer import JobTrainer

JobT = TypeVar("JobT", bound=Trained)


@dataclass(frozen=True)
class FakeRank:
    """Bytes of one rank. `peak` is of the second step, when the optimizer has its state; 0 where none was made."""

    rank: int
    num_ranks: int
    parameters: int
    optimizer: int
    buffers: int
    peak: int
    seconds: float


class _Parts(NamedTuple):
    modules: list[Any]  # the model; of a pipeline this rank's part of it
    schedule: Any | None  # the pipeline's
    has_first: bool
    has_last: bool


class _Total(MemTracker):  # type: ignore[no-untyped-call]
    """Without the statistics of each module: torch's refuse one that is called twice, as the chunked loss does."""

    def _pre_fw_hook(self, module: Any, inputs: Any) -> None:
        del module, inputs

    def _post_fw_hook(self, module: Any, inputs: Any, outputs: Any) -> None:
        del module, inputs, outputs

    def _pre_bw_hook(self, module: Any, args: Any) -> None:
        del module, args

    def _post_bw_hook(self, module: Any, args: Any) -> None:
        del module, args

    @property
    def peak(self) -> int:
        return sum(snapshot["Total"] for snapshot in self.get_tracker_snapshot("peak").values())


def fake_rank(job: Trained, index: int, rank: int = 0, step: bool = False) -> FakeRank:
    """Build the stage of that index as one of its ranks, and train two steps of it where `step` says so."""
    begin = time.perf_counter()
    job = _with_stage(job, index, stand_ins(job.places[index].stage))
    place = job.places[index]
    parallel, ranks = place.stage.parallelism, place.resources.world_size
    if step and parallel.tp > 1 and rank * parallel.pp >= ranks:
        said = f"{rank} of a pipeline with tp {parallel.tp} cannot step alone; write one below {ranks // parallel.pp}"
        raise SpecError(Problem("--rank", "", said))
    config = trainer_config(job, RunDir(Path("fake")), index)
    config.training = replace(config.training, mixed_precision_param="bfloat16")  # as on a GPU
    config.override.imports = [f"xgen.train.shapes.{name}" for name in ("flex", "varlen", "norm")]
    with _world(place.resources.world_size, rank):
        loss = every_token(config.loss).build(compile_config=config.compile)
        parts = _build(config, place, loss)
        with FakeTensorMode(allow_non_fake_inputs=True):
            for part in parts.modules:
                part.to_empty(device="cpu")
                share_rope_tables(part)
                part.train()
            optimizers = config.optimizer.build(model_parts=parts.modules)
            parameters = _bytes(parameter for part in parts.modules for parameter in part.parameters())
            buffers = _bytes(buffer for part in parts.modules for buffer in part.buffers())
            peak = _two_steps(place, job.model.dim, parts, optimizers, loss) if step else 0
            if not step:
                _make_state(parts, optimizers)
            state = _bytes(
                value
                for optimizer in optimizers
                for states in optimizer.state.values()
                for value in states.values()
                if value.dim()
            )
    seconds = time.perf_counter() - begin
    return FakeRank(rank, place.resources.world_size, parameters, state, buffers, peak, seconds)


def stand_ins(stage: Stage) -> dict[str, str]:
    """What is built in place of what only a GPU and its packages have: bf16, whose matrices are larger than those of
    float8, and varlen, whose tensors are flash-attn's."""
    wanted = {"precision": ("float8", "bf16"), "attention": ("flash", "varlen")}
    return {key: built for key, (value, built) in wanted.items() if getattr(stage, key) == value}


@contextmanager
def _world(size: int, rank: int) -> Iterator[None]:
    dist_utils.init_fake_mode(size, rank=rank)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _build(config: JobTrainer.Config, place: Place, loss: Any) -> _Parts:
    """The model on torch's meta device, in the order of torchtitan's Trainer.__init__."""
    spec = config.model_spec
    assert spec is not None
    dims = ParallelDims.from_config(config.parallelism, place.resources.world_size)
    dims.build_mesh()
    dist_utils.set_spmd_backend(config.parallelism.spmd_backend)
    spec.model.update_from_config(config=config)
    apply_overrides(config.override, config)
    with torch.device("meta"):
        model = spec.model.build()
    settings = {
        "parallel_dims": dims,
        "training": config.training,
        "parallelism": config.parallelism,
        "compile_config": replace(config.compile, enable=False),
        "ac_config": config.activation_checkpoint,
        "dump_folder": config.dump_folder,
    }
    if not dims.pp_enabled:
        parts = _Parts([spec.parallelize_fn(model, **settings)], None, True, True)
    else:
        assert spec.pipelining_fn
        schedule, modules, has_first, has_last = spec.pipelining_fn(
            model,
            **settings,
            device=torch.device("cpu"),
            model_config=spec.model,
            parallelize_fn=spec.parallelize_fn,
            loss_fn=loss,
        )
        parts = _Parts(modules, schedule, has_first, has_last)
    if parts.has_last:
        loss.set_lm_head(parts.modules[-1].lm_head)
        parts.modules[-1]._skip_lm_head = True
    return parts


def _two_steps(place: Place, dim: int, parts: _Parts, optimizers: Any, loss: Any) -> int:
    """Peak bytes of the second."""
    _step(place, dim, parts, loss)
    optimizers.step()
    optimizers.zero_grad()
    tracker = _Total()
    tracker.track_external(*parts.modules, *optimizers)
    with tracker:
        _step(place, dim, parts, loss)
        optimizers.step()
    return tracker.peak


def _step(place: Place, dim: int, parts: _Parts, loss: Any) -> None:
    """Forward and backward. What comes before the steady state, and what only repeats it, is left out: of the
    micro-batches of a step two at most, of a pipeline's as many as this rank has under way at once."""
    stage, parallel = place.stage, place.stage.parallelism
    micro_batches = stage.sequences_per_step // (place.resources.world_size // parallel.shared) // stage.micro_batch
    model, shape = parts.modules[0], (stage.micro_batch, stage.seq_len // parallel.cp)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        if parts.has_first:
            x = torch.zeros(shape, dtype=torch.long)
        else:
            x = torch.zeros(*shape, dim, dtype=torch.bfloat16).requires_grad_()
        return x, model(x, torch.zeros(shape, dtype=torch.long), None)

    def backward(y: torch.Tensor) -> None:
        if parts.has_last:
            total, _ = loss(y, torch.zeros(shape, dtype=torch.long), torch.tensor(1.0))
            del y
            total.backward()
        else:
            y.backward(torch.zeros_like(y))  # type: ignore[no-untyped-call]

    if parts.schedule is None:
        for _ in range(min(2, micro_batches)):
            backward(forward()[1])
        return
    # torch's pipeline sums the gradients of a step before it reduces them (torch/distributed/pipelining/stage.py).
    model.set_manual_backward_finalization(True)
    model.set_reshard_after_backward(False)
    model.set_requires_gradient_sync(False)
    ahead = parallel.pp - parts.schedule._stage.stage_index
    under_way = [forward() for _ in range(min(ahead, micro_batches))]
    backward(under_way.pop(0)[1])
    if micro_batches > ahead:  # 1F1B: one forward, one backward
        under_way.append(forward())
    while under_way:
        backward(under_way.pop(0)[1])
    model.set_reshard_after_backward(True)
    model.set_requires_gradient_sync(True)
    model.finalize_backward()
    model.set_manual_backward_finalization(False)


def _make_state(parts: _Parts, optimizers: Any) -> None:
    """The moments, by a step with gradients of nothing."""
    for part in parts.modules:
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
    optimizers.step()


def _bytes(tensors: Iterator[torch.Tensor]) -> int:
    storages = ((t._local_tensor if isinstance(t, DTensor) else t).untyped_storage() for t in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xgen.train.fake", description="One fake rank of a stage.")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--stage", type=int, default=0, help="its index")
    parser.add_argument("--ranks", type=int, help="with more or fewer replicas than the spec has")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--layers", type=int, help="of the model, in place of all")
    parser.add_argument("--step", action="store_true", help="also train two steps, for the peak of memory")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in xgen submit")
    arguments = parser.parse_args()
    try:
        job = load_job(arguments.spec, arguments.set).job
        if not isinstance(job, Trained):
            sys.exit(f"{arguments.spec}: is of the kind {job.kind}; write a spec that trains")
        if not 0 <= arguments.stage < (number := len(job.places)):
            sys.exit(f"--stage {arguments.stage}: the spec has {number} stages; write 0 to {number - 1}")
        if arguments.ranks and not isinstance(job, Pretrain):
            sys.exit(f"--ranks: of the kind {job.kind} write --set resources.nodes=N")
        if arguments.ranks and isinstance(job, Pretrain):
            job = with_ranks(job, arguments.stage, arguments.ranks)
    except SpecError as error:
        sys.exit(str(error))
    if arguments.layers:
        job = job.model_copy(update={"model": job.model.model_copy(update={"num_layers": arguments.layers})})
    world_size = job.places[arguments.stage].resources.world_size
    if not 0 <= arguments.rank < world_size:
        sys.exit(f"--rank {arguments.rank}: the stage has {world_size} ranks; write 0 to {world_size - 1}")
    stage = job.places[arguments.stage].stage
    for key, built in stand_ins(stage).items():
        print(f"{key}: {getattr(stage, key)} is built as {built}", file=sys.stderr)
    try:
        print(json.dumps(asdict(fake_rank(job, arguments.stage, arguments.rank, arguments.step))))
    except (SpecError, Refused) as error:
        sys.exit(str(error))


def with_ranks(job: Pretrain, index: int, num_ranks: int) -> Pretrain:
    """The stage on so many ranks, by more or fewer replicas. Raises SpecError where they do not divide."""
    stage, resources = job.stages[index], job.places[index].resources
    one = stage.parallelism.shards(resources.world_size) * stage.parallelism.shared
    if num_ranks % one or num_ranks % resources.gpus_per_node:
        said = f"{num_ranks} ranks are no multiple of {one}, those of a replica; write --set for another layout"
        raise SpecError(Problem("--ranks", "", said))
    parallel = stage.parallelism.model_copy(update={"replicate": num_ranks // one})
    nodes = resources.model_copy(update={"nodes": num_ranks // resources.gpus_per_node})
    changed = _with_stage(job, index, {"parallelism": parallel, "resources": nodes})
    sequences = stage.sequences_per_step
    if sequences % (num_ranks // parallel.shared * stage.micro_batch):
        said = f"{sequences} sequences of a global_batch do not divide over {num_ranks} ranks; write --set for another"
        raise SpecError(Problem("--ranks", "", said))
    return changed


def _with_stage(job: JobT, index: int, changes: Mapping[str, Any]) -> JobT:
    if isinstance(job, Tuned):
        return job.model_copy(update={"train": job.train.model_copy(update=dict(changes))})
    assert isinstance(job, Pretrain)
    stages = list(job.stages)
    stages[index] = stages[index].model_copy(update=dict(changes))
    return job.model_copy(update={"stages": stages})


if __name__ == "__main__":
    main()
