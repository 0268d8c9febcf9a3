"""What generates answers, in the trainer's process or on a server: requests in, completions out, weights swapped.

No torch on import: servers and their clients need none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

# (version of the weights, number of tokens sampled from them), in the order of the answer.
Versions = tuple[tuple[int, int], ...]


class EngineError(Exception):
    """What happened, and what to do. `retryable`: whether the same call may succeed later, or elsewhere; if not, the
    request or the engine is wrong, however often it is tried."""

    def __init__(self, what: str, *, retryable: bool) -> None:
        super().__init__(what)
        self.retryable = retryable


class NoNumbersError(EngineError):
    """The weights give logits or losses that are no numbers: others may be sound."""

    def __init__(self, what: str) -> None:
        super().__init__(what, retryable=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn, and what ends an answer. The tokens of `stop` belong to the answer that they end."""

    max_tokens: int  # of an answer, with those of `Request.begun`
    temperature: float = 1.0  # 0: the likeliest token
    top_p: float = 1.0  # the likeliest tokens whose probabilities together first reach this are drawn from
    stop: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """The tokens of an answer so far, one of `logprobs` for each; `versions` add up to their number."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: Versions


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted. With `begun` it goes on from there, as if it had never been interrupted.

    A token depends on the weights, the tokens before it, `seed` and its own number within the answer, and on nothing
    that is generated beside it. A server keeps this as far as its own sampler does.
    """

    id: str  # of no other request that is pending
    prompt: tuple[int, ...]  # one token or more
    seed: int  # 0 to 2**63 - 1; answers to one prompt differ by it alone
    sampling: Sampling
    begun: Partial | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `logprobs`: natural logarithm of each token's probability under softmax(logits / temperature), before top_p; at
    temperature 0, under softmax(logits). nan for a token of a server that tells none: whoever trains on it takes those
    of its own weights.
    """

    id: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]  # the last token is one of `stop` | cut at max_tokens
    versions: Versions
    seconds: float  # from `submit` to the last token, waiting in line included


class Engine(Protocol):
    """Every method raises EngineError, and all may be called from several threads."""

    @property
    def version(self) -> int:
        """Of the weights that the next token is sampled from."""

    def submit(self, request: Request) -> None:
        """Take a request; it is answered once, by `completed`."""

    def completed(self, timeout: float | None = None) -> list[Completion]:
        """Answers that have ended, in any order, each given out once. Waits for one, at most `timeout` seconds (None:
        however long); [] when that has passed, or at once when nothing is pending."""

    def pending(self) -> dict[str, Partial]:
        """What there is of every answer that `completed` has not given out, by request; for `Request.begun`."""

    def cancel(self, ids: Iterable[str]) -> None:
        """Drop requests, and answers that were not given out. Those that are not pending are passed over."""

    def load(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Swap all weights, by torchtitan's name as a checkpoint has them, whole tensors in any order. Answers that
        have begun go on with the new ones, and say so in `versions`."""

    def close(self) -> None:
        """Give up what is pending, and free what is held. Closing twice does no harm."""
