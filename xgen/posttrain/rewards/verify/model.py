"""The kind `model`: a score that a server gives."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from xgen.posttrain.rewards.verify.reply import Reply

_MOST = 1 << 22  # bytes of a response


def judge(job: Mapping[str, Any]) -> Reply:
    """Asks once. Raises nothing: what the network does is a failure with its reason."""
    place = job["url"].partition("?")[0]  # what comes after it may be a key
    data = json.dumps(_request(job)).encode()
    request = urllib.request.Request(job["url"], data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=job["seconds"]) as response:
            body = response.read(_MOST + 1)
    except TimeoutError:
        return Reply(None, "timeout", detail=f"{place} did not answer in {job['seconds']:g} s")
    except (OSError, ValueError) as error:  # HTTPError and URLError are OSErrors
        is_late = isinstance(getattr(error, "reason", None), TimeoutError)
        return Reply(None, "timeout" if is_late else "error", detail=f"{place}: {error}")
    if len(body) > _MOST:
        return Reply(None, "output", detail=f"{place} answered more than {_MOST} bytes")
    try:
        score = _score(json.loads(body))
    except (ValueError, LookupError, TypeError):
        return Reply(None, "error", detail=f"{place}: no score in {body[:100]!r}")
    if not math.isfinite(score):
        return Reply(None, "error", detail=f"{place} gave {score}")
    return Reply(score)


def _request(job: Mapping[str, Any]) -> dict[str, Any]:
    path = job["url"].partition("?")[0].rstrip("/")
    if path.endswith("/score"):
        return {"model": job["name"], "text_1": job["prompt"], "text_2": job["answer"]}
    if path.endswith("/pooling"):
        said = [{"role": "user", "content": job["prompt"]}, {"role": "assistant", "content": job["answer"]}]
        return {"model": job["name"], "messages": said}
    return {"model": job["name"], "prompt": job["prompt"], "answer": job["answer"]}


def _score(said: Any) -> float:
    """{"score": x}; vLLM's /score and /pooling: {"data": [{"score": x}]}, {"data": [{"data": [x]}]} (the last one is
    that of the last token). Raises ValueError, LookupError, TypeError."""
    if "data" in said:
        said = said["data"][0]
    value = said["score"] if "score" in said else said["data"]
    while isinstance(value, list):
        value = value[-1]
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)
