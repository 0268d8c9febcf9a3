"""Small models, engines of them, and what they answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from tests.model.parity import SMALL, titan, titan_logits
from xgen.engine import Completion, Engine, Request, Sampling
from xgen.engine.inprocess import InProcessEngine
from xgen.spec import ModelSpec, RopeScaling

SEQ_LEN = 256
STATES: dict[int, dict[str, torch.Tensor]] = {}


def spec_of(**sizes: Any) -> ModelSpec:
    return ModelSpec(**SMALL | {"num_kv_heads": 2} | sizes)


def weights(seed: int = 0) -> Mapping[str, torch.Tensor]:
    if seed not in STATES:
        STATES[seed] = dict(titan(spec_of(), SEQ_LEN, seed=seed).state_dict())
    return STATES[seed]


def engine_of(at_once: int = 8, version: int = 1, seed: int = 0) -> InProcessEngine:
    engine = InProcessEngine(spec_of(), SEQ_LEN, 1e4, at_once=at_once)
    engine.load(version, weights(seed).items())
    return engine


def request(
    name: str, length: int = 12, max_tokens: int = 20, prompt_seed: int | None = None, **sampling: Any
) -> Request:
    """Its seed follows from its name, and so does the prompt, unless it has a seed of its own."""
    seed = sum(map(ord, name)) if prompt_seed is None else prompt_seed
    drawn = torch.randint(512, (length,), generator=torch.Generator().manual_seed(seed))
    return Request(name, tuple(drawn.tolist()), sum(map(ord, name)), Sampling(max_tokens, **sampling))


def answers(engine: Engine, requests: Iterable[Request] = ()) -> dict[str, Completion]:
    for wanted in requests:
        engine.submit(wanted)
    found: dict[str, Completion] = {}
    while ended := engine.completed(60):
        assert not found.keys() & {completion.id for completion in ended}
        found |= {completion.id: completion for completion in ended}
    return found


def full_logprobs(model: torch.nn.Module, asked: Request, tokens: tuple[int, ...]) -> list[float]:
    """By torchtitan's own forward pass over all tokens."""
    logits = titan_logits(model, torch.tensor([asked.prompt + tokens]))[0, len(asked.prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits / (asked.sampling.temperature or 1), -1)
    found: list[float] = logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    return found


def essence(completion: Completion) -> tuple[object, ...]:
    """All but the seconds."""
    return completion.tokens, completion.logprobs, completion.finish, completion.versions


SCALING = RopeScaling(factor=4, original=64)
