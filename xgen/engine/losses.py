"""How likely each token of a text is to a model, given those before it: many short texts in one pass, and a long one in
parts, each of which sees the keys and values of those before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch

from xgen.engine.attention import Piece
from xgen.engine.cache import Cache, rounded
from xgen.engine.decoder import Decoder
from xgen.engine.protocol import EngineError, NoNumbersError

# That are there at once: on a CPU what its cache holds.
_ON_CPU, _ON_GPU = 1 << 21, 1 << 27


def token_losses(decoder: Decoder, texts: Iterable[Sequence[int]], fix: str) -> Iterator[torch.Tensor]:
    """Negative log-likelihood in nats of every token of each text but the first: [T - 1] of float32 on the CPU, in the
    order of the texts, of which a pass is taken at a time. In float32 on CPUs they have the same bits whatever other
    texts there are.

    `fix`: what to write where memory is too little. Raises EngineError for that, and for a text that is too long, has a
    token that the model does not know, or gets no numbers.
    """
    cache = Cache(decoder.model, decoder.device, decoder.dtype, fix)
    number = 0
    for together in _passes(texts, decoder.at_a_time):
        for name, text in enumerate(together, number):
            _check(decoder, text, name)
        for name, losses in enumerate(_of_pass(decoder, cache, together), number):
            if not math.isfinite(losses.sum()):
                raise NoNumbersError(f"the weights give text {name} losses that are no numbers")
            yield losses
        number += len(together)


def _check(decoder: Decoder, text: Sequence[int], name: int) -> None:
    vocab_size = decoder.model.vocab_size
    if _num_read(text) > decoder.seq_len:
        what = f"text {name} has {len(text):,} tokens, and the model was opened for {decoder.seq_len:,}"
        raise EngineError(what, retryable=False)
    if len(text) and not 0 <= min(text) <= max(text) < vocab_size:
        raise EngineError(f"text {name} has a token outside 0 to {vocab_size - 1}", retryable=False)


def _num_read(text: Sequence[int]) -> int:
    """Its last token is predicted, and predicts none."""
    return max(0, len(text) - 1)


def _passes(texts: Iterable[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Neighbours whose rows of the cache have no more than `most` tokens together, or one text that has more alone."""
    together: list[Sequence[int]] = []
    room = 0
    for text in texts:
        wanted = rounded(max(1, _num_read(text)))
        if together and (len(together) + 1) * max(room, wanted) > most:
            yield together
            together, room = [], 0
        together.append(text)
        room = max(room, wanted)
    if together:
        yield together


def _of_pass(decoder: Decoder, cache: Cache, texts: list[Sequence[int]]) -> list[torch.Tensor]:
    """Only a text that is alone takes more than one part."""
    longest = max(map(_num_read, texts))
    if len(texts) > cache.num_rows or longest > cache.room:
        cache.clear()  # it would keep the rows of one pass, and the room of another
    cache.reserve(len(texts), longest, longest)
    of_parts = []
    for start in range(0, longest, decoder.at_a_time):
        stops = [min(start + decoder.at_a_time, _num_read(text)) for text in texts]
        pieces = [
            Piece(row, start, text[start:stop])
            for row, (text, stop) in enumerate(zip(texts, stops, strict=True))
            if stop > start
        ]
        labels = [int(text[at + 1]) for text, stop in zip(texts, stops, strict=True) for at in range(start, stop)]
        of_parts.append(_against(decoder, decoder.hidden(cache, pieces), torch.tensor(labels, device=decoder.device)))
    losses = torch.cat(of_parts).cpu() if of_parts else torch.zeros(0)
    return list(torch.split(losses, [_num_read(text) for text in texts]))


@torch.inference_mode()
def _against(decoder: Decoder, hidden_TD: torch.Tensor, label_T: torch.Tensor) -> torch.Tensor:
    """[T], a few tokens at a time: the logits of all would be larger than the model."""
    num_logits = _ON_CPU if decoder.device.type == "cpu" else _ON_GPU
    at_a_time = max(decoder.fewest, num_logits // decoder.model.vocab_size)
    losses = [
        torch.nn.functional.cross_entropy(decoder.logits(hidden), label, reduction="none")
        for hidden, label in zip(torch.split(hidden_TD, at_a_time), torch.split(label_T, at_a_time), strict=True)
    ]
    return torch.cat(losses)
