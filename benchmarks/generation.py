"""Generation in the trainer's process beside transformers' `generate`: `python -m benchmarks.generation [--json]`.

The same 10 million random parameters, prompts of 64 tokens, float32, one thread, sampling at temperature 1, in turn in
one process. Seconds are of the processor, so that other work on the machine counts less. "alike":
all prompts differ and every answer has 64 tokens, what a static batch is best at. "groups": 4 prompts with 16 answers
each, as in GRPO, and an answer ends at any of a 64th of all tokens, after 192 at the latest. `transformers` is what
TRL's trainers generate with when they have no vLLM. A ratio is our time for a token over theirs, round by round.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.common import Figure, Result
from tests.model.parity import hugging_face, titan
from xgen.engine import Request, Sampling
from xgen.engine.inprocess import InProcessEngine
from xgen.model.hf import Context
from xgen.spec import ModelSpec

MODEL = ModelSpec(
    name="small", dim=256, num_layers=8, num_heads=8, num_kv_heads=4, ffn_dim=704, vocab_size=8192
)  # fmt: skip
PROMPT, SEQ_LEN = 64, 512
STOP = tuple(range(MODEL.vocab_size // 64))
RATIO = 1 / 3

Prompts = list[tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    prompts: Prompts
    max_tokens: int
    stop: tuple[int, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = {name: t * 0.3 if t.ndim == 2 else t for name, t in titan(MODEL, SEQ_LEN).state_dict().items()}
    engine = InProcessEngine(MODEL, SEQ_LEN, 1e4, at_once=64)
    engine.load(0, state.items())
    theirs = hugging_face(MODEL, state, Context(SEQ_LEN, 1e4, None, "float32", eos=0))
    cases = {
        "alike, 8 answers": Case(_prompts(8), 64),
        "alike, 64 answers": Case(_prompts(64), 64),
        "groups, 64 answers": Case([prompt for prompt in _prompts(4) for _ in range(16)], 192, STOP),
    }
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(options.rounds + 1):
        for name, case in cases.items():
            for who, generate in (("ours", _ours(engine, turn)), ("theirs", _theirs(theirs, turn))):
                began = time.process_time()
                num_tokens = generate(case)
                if turn:  # the first warms up
                    rates[name][who].append(num_tokens / (time.process_time() - began))
    ratios = {
        f"ratio, {name}": [t / o for o, t in zip(r["ours"], r["theirs"], strict=True)] for name, r in rates.items()
    }
    Result(
        "generation",
        {name: Figure.of(r["ours"], "tokens/s") for name, r in rates.items()}
        | {name: Figure.of(values, "x") for name, values in ratios.items()},
        {f"transformers, {name}": Figure.of(r["theirs"], "tokens/s") for name, r in rates.items()},
        dict.fromkeys(ratios, RATIO),
    ).print(options.json)


def _prompts(count: int) -> Prompts:
    drawn = torch.randint(MODEL.vocab_size, (count, PROMPT), generator=torch.Generator().manual_seed(count))
    return [tuple(row) for row in drawn.tolist()]


def _ours(engine: InProcessEngine, turn: int) -> Callable[[Case], int]:
    def generate(case: Case) -> int:
        for number, prompt in enumerate(case.prompts):
            sampling = Sampling(case.max_tokens, stop=case.stop)
            engine.submit(Request(str(number), prompt, 1000 * turn + number, sampling))
        num_tokens = 0
        while ended := engine.completed():
            num_tokens += sum(len(answer.tokens) for answer in ended)
        return num_tokens

    return generate


def _theirs(model: Any, turn: int) -> Callable[[Case], int]:
    def generate(case: Case) -> int:
        torch.manual_seed(turn)
        prompts = torch.tensor(case.prompts)
        with torch.no_grad():
            rows = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=case.max_tokens, do_sample=True,
                top_k=0, eos_token_id=list(case.stop) or None, pad_token_id=0,
            )  # fmt: skip
        return sum(_length(row, case.stop) for row in rows[:, PROMPT:].tolist())

    return generate


def _length(answer: Sequence[int], stop: tuple[int, ...]) -> int:
    """Of an answer with its padding."""
    return next((number + 1 for number, token in enumerate(answer) if token in stop), len(answer))


if __name__ == "__main__":
    main()
