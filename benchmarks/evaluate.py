"""What a shard of an evaluation computes, beside transformers: `python -m benchmarks.evaluate [--json]`.

The same 10 million random parameters, the same prompts and texts, float32, one thread, in turn in one process; seconds
are of the processor, so that other work on the machine counts less. "answers": greedy ones of 16 tokens to prompts of
200 to 1,000 tokens. "losses": of every token of texts as long, and of one of 4,096. transformers takes one after the
other, `generate` and a forward pass, as lm-evaluation-harness does with `batch_size=1`; both must say the same. A ratio
is our time over theirs, round by round.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.common import Figure, Result
from benchmarks.generation import MODEL
from tests.model.parity import hugging_face, titan
from xgen.engine.inprocess import InProcessEngine
from xgen.evals.model import EngineModel
from xgen.evals.protocol import Prompt
from xgen.model.hf import Context

NUM_TEXTS, SHORTEST, LONGEST, LONG, ANSWER = 8, 200, 1000, 4096, 16
GOALS = {"answers": 0.7, "losses": 1.0, "losses of a long text": 1.0}

Text = Sequence[int]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = {name: t * 0.3 if t.ndim == 2 else t for name, t in titan(MODEL, LONG).state_dict().items()}
    engine = InProcessEngine(MODEL, LONG, 1e4, at_once=NUM_TEXTS)
    engine.load(0, state.items())
    ours = EngineModel(engine, NUM_TEXTS)
    theirs = hugging_face(MODEL, state, Context(LONG, 1e4, None, "float32", eos=0))
    texts = [_text(SHORTEST + (LONGEST - SHORTEST) * number // (NUM_TEXTS - 1)) for number in range(NUM_TEXTS)]
    long = [_text(LONG)]
    cases: dict[str, tuple[int, Callable[[], Any], Callable[[], Any]]] = {
        "answers": (NUM_TEXTS, lambda: _answers(ours, texts), lambda: _their_answers(theirs, texts)),
        "losses": (sum(map(len, texts)), lambda: _losses(ours, texts), lambda: _their_losses(theirs, texts)),
        "losses of a long text": (LONG, lambda: _losses(ours, long), lambda: _their_losses(theirs, long)),
    }
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for turn in range(options.rounds + 1):
        for name, (_, *both) in cases.items():
            times, said = [], []
            for compute in both:
                began = time.process_time()
                said.append(compute())
                times.append(time.process_time() - began)
            torch.testing.assert_close(*said, rtol=0, atol=1e-3)
            if turn:  # the first warms up
                seconds[name].append((times[0], times[1]))
    units = {name: "samples/s" if name == "answers" else "tokens/s" for name in cases}
    rates = {
        name: [[count / one for one in side] for side in zip(*seconds[name], strict=True)]
        for name, (count, *_) in cases.items()
    }
    figures = {name: Figure.of(rates[name][0], units[name]) for name in cases}
    ratios = {f"ratio, {name}": Figure.of([own / other for own, other in seconds[name]], "x") for name in cases}
    peers = {f"transformers, {name}": Figure.of(rates[name][1], units[name]) for name in cases}
    goals = {f"ratio, {name}": goal for name, goal in GOALS.items()}
    Result("evaluate", figures | ratios, peers, goals).print(options.json)


def _text(length: int) -> Text:
    drawn = torch.randint(MODEL.vocab_size, (length,), generator=torch.Generator().manual_seed(length))
    return tuple(drawn.tolist())


def _answers(model: EngineModel, texts: Sequence[Text]) -> torch.Tensor:
    found = dict(model.generate(Prompt(text, ANSWER, ()) for text in texts))
    return torch.tensor([found[number].ids for number in range(len(texts))])


def _their_answers(model: Any, texts: Sequence[Text]) -> torch.Tensor:
    answers = []
    for text in texts:
        tokens = torch.tensor([text])
        mask = torch.ones_like(tokens)
        with torch.no_grad():
            row = model.generate(
                tokens, attention_mask=mask, max_new_tokens=ANSWER, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        answers.append(row[0, len(text) :])
    return torch.stack(answers)


def _losses(model: EngineModel, texts: Sequence[Text]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(losses) for losses in model.losses(texts)])


def _their_losses(model: Any, texts: Sequence[Text]) -> torch.Tensor:
    losses = []
    for text in texts:
        tokens = torch.tensor([text])
        with torch.no_grad():
            logits = model(tokens).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none"))
    return torch.cat(losses)


if __name__ == "__main__":
    main()
