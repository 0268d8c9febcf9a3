"""The engine of the evaluation on one GPU: `python -m benchmarks.gpu_evaluate [--json] [--lengths 4k,32k,128k]`.

The 4B with random weights in bf16, as `xgen.engine` computes it for a shard of an evaluation: reading one prompt of
each length, the loss of every token of a text of each length and of one twice as long as the longest, the next token of
as many answers as memory holds, and a whole greedy answer. Peers, in the same process: the end of a prompt by other
attentions, and both ways to attend to rows of answers, of which the engine takes one. Peaks are by CUDA's allocator,
weights included; FLOPs are the model's, forward. Random weights write no sense, and take as long.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.common import Figure, Result
from benchmarks.gpu import PEAK
from xgen.engine import Request, Sampling
from xgen.engine import attention as engine_attention
from xgen.engine.attention import Piece
from xgen.engine.cache import Cache
from xgen.engine.causal import flash, masked
from xgen.engine.decoder import Decoder
from xgen.engine.inprocess import InProcessEngine
from xgen.engine.losses import token_losses
from xgen.model.hf import parameter_shapes
from xgen.spec import ModelSpec
from xgen.spec.models import MODELS

ANSWER = 64  # tokens
LAST = 8192  # tokens of a prompt that are read by other attentions
SHARE = 0.85  # of the memory that is free, for keys and values


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_evaluate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--lengths", default="4k,32k,128k", help="tokens (default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="xgen-4b", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="timed passes (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU is here; write --device cpu --model tiny --lengths 1k to try the command")
    lengths = [int(text.removesuffix("k")) * (1024 if text.endswith("k") else 1) for text in options.lengths.split(",")]
    bench = Bench(ModelSpec.model_validate(MODELS[options.model]), torch.device(options.device), max(lengths) * 2)
    for length in lengths:
        bench.read(length, options.repeats)
        if length > LAST:
            bench.read_the_last(length)
        bench.losses(length, options.repeats)
        bench.next_tokens(length)
    bench.losses(2 * max(lengths), 1)
    bench.answer(max(lengths))
    Result("gpu_evaluate", bench.figures, bench.peers, {}).print(options.json)


class Bench:
    """A model on a device, and what was measured of it."""

    def __init__(self, model: ModelSpec, device: torch.device, seq_len: int) -> None:
        self.model, self.device = model, device
        self.figures: dict[str, Figure] = {}
        self.peers: dict[str, Figure] = {}
        self._engine = InProcessEngine(model, seq_len, 1.28e8, at_once=64, device=device, dtype=torch.bfloat16)
        self._engine.load(0, self._weights())
        self.decoder: Decoder = self._engine._decoder
        name = torch.cuda.get_device_name() if device.type == "cuda" else ""
        self._flops = next((flops for key, flops in PEAK.items() if key in name), 0.0)
        self._random = torch.Generator().manual_seed(1)

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in parameter_shapes(self.model).items():
            scale = 1.0 if len(shape) == 1 else shape[-1] ** -0.5
            yield name, (torch.ones if len(shape) == 1 else torch.randn)(shape, device=self.device) * scale

    def tokens(self, count: int) -> tuple[int, ...]:
        return tuple(torch.randint(self.model.vocab_size, (count,), generator=self._random).tolist())

    def read(self, length: int, repeats: int) -> None:
        """A prompt into the cache."""
        parameters = self.model.vocab_size * self.model.dim  # of the head, which is not asked
        flops = self.model.flops_per_token(length) / 3 - 2 * parameters
        name = f"read a prompt of {length}"
        self._rate(name, length, flops, repeats, partial(self._read, self.tokens(length)), self.figures)

    def read_the_last(self, length: int) -> None:
        """The last tokens of a prompt alone: all of it takes long by a mask."""
        attention: Any = self.decoder._attention
        piece = Piece(0, length - LAST, self.tokens(LAST))
        cache = self._cache(1, length)
        for layer in cache.layers:
            layer.normal_()
        ours = attention._causal
        others = {"flash": flash, "a mask": masked} if self.device.type == "cuda" else {"a mask": masked}
        for other, attend in {"": ours, **others}.items():
            attention._causal = attend
            name = f"last {LAST} of a prompt of {length}" + (f", by {other}" if other else "")
            run = partial(self.decoder.prefill, cache, [piece])
            self._rate(name, LAST, 0, 2, run, self.peers if other else self.figures)
        attention._causal = ours

    def _read(self, prompt: tuple[int, ...]) -> None:
        cache = self._cache(1, len(prompt))
        for start in range(0, len(prompt), self.decoder.at_a_time):
            self.decoder.prefill(cache, [Piece(0, start, prompt[start : start + self.decoder.at_a_time])])

    def losses(self, length: int, repeats: int) -> None:
        def compute() -> None:
            losses = next(token_losses(self.decoder, [self.tokens(length)], ""))
            assert len(losses) == length - 1

        self._rate(
            f"losses of {length}", length, self.model.flops_per_token(length) / 3, repeats, compute, self.figures
        )

    def next_tokens(self, length: int) -> None:
        """Of as many answers as memory holds, after so many tokens each, whatever these are."""
        free = torch.cuda.mem_get_info()[0] if self.device.type == "cuda" else 1 << 30
        of_token = 2 * 2 * self.model.num_layers * self.model.num_kv_heads * self.model.head_dim
        num_rows = max(1, min(64, int(SHARE * free / (of_token * (length + ANSWER)))))
        for rows in sorted({1, num_rows}):
            cache = self._cache(rows, length + ANSWER)
            for layer in cache.layers:
                layer.normal_()
            ours = engine_attention._KEYS_FOR_A_ROW
            for way, keys in (("", ours), (", all rows in one kernel", 1 << 30), (", row by row", 0)):
                engine_attention._KEYS_FOR_A_ROW = keys
                rates = [rows / seconds for seconds in self._next(cache, rows, length)]
                self._tell(f"next tokens of {rows} x {length}{way}", rates, self.peers if way else self.figures)
            engine_attention._KEYS_FOR_A_ROW = ours
            del cache, layer
            self._empty()

    def _next(self, cache: Cache, rows: int, length: int) -> list[float]:
        tokens = torch.zeros(rows, dtype=torch.int64, device=self.device)
        seconds = []
        for step in range(8):
            began = self._now()
            positions = torch.full((rows,), length + step, device=self.device)
            self.decoder.decode(cache, tokens, positions, [length + step + 1] * rows)
            seconds.append(self._now() - began)
        return seconds[3:]

    def answer(self, length: int) -> None:
        """From the prompt to the last token, as a shard has it."""
        prompt = self.tokens(length - ANSWER)
        self._reset()
        began = self._now()
        self._engine.submit(Request("one", prompt, 0, Sampling(ANSWER, temperature=0)))
        found = self._engine.completed()
        assert [len(completion.tokens) for completion in found] == [ANSWER]
        name = f"an answer of {ANSWER} after {length - ANSWER}"
        self._tell(name, [self._now() - began], self.figures, "s")
        self._tell_peak(name, self.figures)

    def _cache(self, rows: int, length: int) -> Cache:
        cache = Cache(self.model, self.device, torch.bfloat16, "")
        cache.reserve(max(rows, self.decoder.fewest), length, length)
        return cache

    def _rate(
        self, name: str, count: int, flops: float, repeats: int, run: Callable[[], None], into: dict[str, Figure]
    ) -> None:
        """The first run warms up, where there are several. What does not fit is said and left out."""
        self._reset()
        seconds = []
        try:
            for _ in range(repeats + 1 if repeats > 1 else 1):
                began = self._now()
                run()
                seconds.append(self._now() - began)
        except torch.OutOfMemoryError as error:
            print(f"{name}: left out: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            return
        rates = [count / one for one in seconds[-repeats:]]
        self._tell(name, rates, into)
        if self._flops and flops:
            self._tell(f"{name}: MFU", [100 * rate * flops / self._flops for rate in rates], into, "%")
        self._tell_peak(name, into)

    def _tell(self, name: str, values: list[float], into: dict[str, Figure], unit: str = "tokens/s") -> None:
        into[name] = Figure.of(values, unit)
        print(f"{name}: {into[name]}", file=sys.stderr, flush=True)

    def _tell_peak(self, name: str, into: dict[str, Figure]) -> None:
        if self.device.type == "cuda":
            into[f"{name}: peak"] = Figure.of([torch.cuda.max_memory_allocated() / 2**30], "GiB")

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _reset(self) -> None:
        self._empty()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _empty(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
