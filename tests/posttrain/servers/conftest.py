"""A run with a tiny model, and transformers' own server for it."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from xgen.engine.protocol import Completion, Partial, Request, Sampling
from xgen.model.hf import parameter_shapes
from xgen.posttrain.servers import HttpEngine, registry
from xgen.posttrain.servers.registry import Server, deregister, register
from xgen.posttrain.servers.weights import current
from xgen.runs import RunDir
from xgen.spec import Rl

VOCABULARY = 96
MODEL = {"dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64, "vocab_size": VOCABULARY}


def job_of(**servers: Any) -> Rl:
    return Rl.model_validate(
        {
            "kind": "rl",
            "name": "small",
            "model": {"name": "small"} | MODEL,
            "init": "base-abc234",
            "resources": {"nodes": 1, "gpus_per_node": 0, "time": "1h"},
            "prompts": {"tokenizer": "/none", "sources": {"math": "/none"}, "max_tokens": 64},
            "rollout": {
                "prompts": 4, "max_tokens": 128,
                "servers": {"kind": "transformers", "timeout": "20s", "at_once": 2} | servers,
            },
            "rewards": {"math": {"kind": "math"}},
            "train": {"steps": 10, "sequences": 16, "seq_len": 1024, "lr": {"peak": 1e-6}},
        }
    )  # fmt: skip


def weights_of(job: Rl, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.2
        for name, shape in parameter_shapes(job.model).items()
    }


def request(name: str, prompt: tuple[int, ...] = (5, 17, 95, 0), begun: Partial | None = None, **how: Any) -> Request:
    sampling = Sampling(**{"max_tokens": 16, "temperature": 0.0} | how)
    return Request(name, prompt, seed=abs(hash(name)) % 2**31, sampling=sampling, begun=begun)


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.02)


def collect(engine: HttpEngine, number: int, timeout: float = 60) -> dict[str, Completion]:
    """That many answers, each once."""
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + timeout
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} answers, pending {list(engine.pending())}"
        for completion in engine.completed(timeout=0.5):
            assert completion.id not in found
            found[completion.id] = completion
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class Serve:
    """A `transformers serve`, in a process of its own."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, *words, "--device", "cpu"],
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.is_healthy, "transformers serve")

    def is_healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=1).status_code == 200
        return False

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    server = Serve()
    server.start()
    yield server
    server.kill()


@dataclass
class Bench:
    """A run directory, the engine of its trainer, and the servers that are told to it."""

    run: RunDir
    job: Rl
    engines: list[HttpEngine] = field(default_factory=list)

    def engine(self, *, writer: bool = True) -> HttpEngine:
        self.engines.append(HttpEngine(self.run, self.job, "float32", writer=writer))
        return self.engines[-1]

    def tell(self, shard: int, url: str, weights: str | None = None) -> None:
        """That a server has the weights which count, or others."""
        name = weights or current(self.run) or ""
        register(self.run, Server(shard=shard, url=url, weights=name, started=float(shard)))

    def forget(self, shard: int) -> None:
        deregister(self.run, shard)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(registry, "STALE", math.inf)  # nobody keeps these servers: no heart beats
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    made = Bench(run, job_of())
    yield made
    for engine in made.engines:
        engine.close()
