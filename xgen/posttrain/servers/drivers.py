"""What differs between servers: how they start, how an answer is asked for, what comes back, how weights are swapped.

Both speak OpenAI's /v1/completions and have /health. A driver knows the words; who sends them is elsewhere.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import httpx

from xgen.engine.protocol import Request
from xgen.posttrain.servers.weights import as_words, from_words

_SEEDS = 2**63


@dataclass(frozen=True)
class Piece:
    """What a message of the stream brings: tokens, and the logarithm of each one's probability, nan where the server
    does not tell."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class BadAnswerError(Exception):
    """A message that is none of the protocol, or says that the answer has failed."""


class Driver(Protocol):
    command: ClassVar[tuple[str, ...]]  # with {host}, {port} and {model}
    environment: ClassVar[Mapping[str, str]]

    def body(self, request: Request, tokens: tuple[int, ...], model: Path) -> dict[str, Any]:
        """What is posted for an answer that has `tokens` already."""

    def read(self, choice: Mapping[str, Any]) -> Piece:
        """The first of a message's `choices`. Raises KeyError, TypeError or ValueError for what it cannot be."""

    def load(self, client: httpx.Client, url: str, model: Path) -> None:
        """Swap the weights of a server that runs; answers that it is at end early. Raises httpx.HTTPError and
        BadAnswerError: then nobody knows what it has, and it is started anew."""


class Vllm(Driver):
    """vLLM's server. Its development mode has what swaps weights (VLLM_SERVER_DEV_MODE in its documentation, and
    vllm/entrypoints/serve/dev), without any password: it belongs on a network of the cluster's own."""

    command = (
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "{host}", "--port", "{port}",
        "--model", "{model}", "--served-model-name", "policy",
        "--logprobs-mode", "processed_logprobs",  # after the temperature, as the trainer computes them
        "--stream-interval", "8",
    )  # fmt: skip
    environment: ClassVar[Mapping[str, str]] = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}

    def body(self, request: Request, tokens: tuple[int, ...], model: Path) -> dict[str, Any]:
        del model
        sampling = request.sampling
        return {
            "model": "policy",
            "prompt": [*request.prompt, *tokens],
            "stream": True,
            "seed": _seed(request, tokens),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens - len(tokens),
            "stop_token_ids": list(sampling.stop),
            "ignore_eos": True,  # only what the request names ends it
            "logprobs": 1,
            "return_token_ids": True,
        }

    def read(self, choice: Mapping[str, Any]) -> Piece:
        tokens = tuple(int(token) for token in choice.get("token_ids") or ())
        found = (choice.get("logprobs") or {}).get("token_logprobs") or ()
        logprobs = tuple(float(value) for value in found)
        if len(tokens) != len(logprobs):
            raise ValueError(f"{len(tokens)} tokens with {len(logprobs)} probabilities")
        return Piece(tokens, logprobs)

    def load(self, client: httpx.Client, url: str, model: Path) -> None:
        # What is under way is aborted, and asked for again by whoever asked: it is of one version each.
        client.post(f"{url}/pause", params={"mode": "abort", "clear_cache": "true"}).raise_for_status()
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(model)}}
        client.post(f"{url}/collective_rpc", json=body).raise_for_status()
        client.post(f"{url}/resume").raise_for_status()


class Transformers(Driver):
    """`transformers serve`: one answer after the other, no probabilities, and no seed that holds when several ask."""

    command = (
        sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "{host}", "--port", "{port}",
    )  # fmt: skip
    environment: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1"}

    def body(self, request: Request, tokens: tuple[int, ...], model: Path) -> dict[str, Any]:
        sampling = request.sampling
        config: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens - len(tokens),
            "eos_token_id": list(sampling.stop) or None,
            "pad_token_id": 0,  # of a batch of one nothing is padded
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            config |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return {
            "model": str(model),
            "prompt": as_words((*request.prompt, *tokens)),
            "stream": True,
            "seed": _seed(request, tokens),
            "generation_config": json.dumps(config),
        }

    def read(self, choice: Mapping[str, Any]) -> Piece:
        tokens = tuple(from_words(choice["text"]))
        return Piece(tokens, (math.nan,) * len(tokens))

    def load(self, client: httpx.Client, url: str, model: Path) -> None:
        """A server has all models that it is asked for; one that nobody asks for is dropped after a while."""
        status = "nothing"
        with client.stream("POST", f"{url}/load_model", json={"model": str(model)}) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    status = json.loads(line.removeprefix("data: ")).get("status")
        if status != "ready":
            raise BadAnswerError(f"{url} said {status} of {model}")


DRIVERS: Mapping[str, type[Driver]] = {"vllm": Vllm, "transformers": Transformers}


def _seed(request: Request, tokens: tuple[int, ...]) -> int:
    """An answer that goes on elsewhere does not draw the numbers of its beginning again."""
    return (request.seed + 0x9E3779B97F4A7C15 * len(tokens)) % _SEEDS


def read_line(driver: Driver, line: str) -> Piece | None:
    """A line of the stream; None for what brings nothing. Raises BadAnswerError."""
    if not line.startswith("data:") or (text := line.removeprefix("data:").strip()) == "[DONE]":
        return None
    try:
        message = json.loads(text)
        if "error" in message:
            raise BadAnswerError(f"the server said: {message['error']}")
        return driver.read(message["choices"][0]) if message.get("choices") else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswerError(f"the server sent {text[:200]!r}: {error!r}") from None
