"""What the next step takes of every row, on the device: its last token, and how the one after it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from xgen.engine.answer import Answer
from xgen.engine.sampling import draw, stream_key, uniforms


class Inputs:
    """By row: token, its position, the number of the next token within the answer, the stream it is drawn by."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self._whole = torch.zeros(4, num_rows, dtype=torch.int64, device=device)
        self._real = torch.ones(2, num_rows, device=device)  # temperature, top_p
        self._greedy: torch.Tensor | None = None
        self._nucleus: torch.Tensor | None = None

    def place(self, row: int, answer: Answer) -> None:
        request, sampling = answer.request, answer.request.sampling
        last = (request.prompt + tuple(answer.tokens))[-1]
        whole = (last, answer.position, len(answer.tokens), stream_key(request.seed))
        self._whole[:, row] = torch.tensor(whole)
        self._real[:, row] = torch.tensor((sampling.temperature, sampling.top_p))

    def move(self, source: int, row: int) -> None:
        self._whole[:, row] = self._whole[:, source]
        self._real[:, row] = self._real[:, source]

    def arranged(self, answers: Sequence[Answer]) -> None:
        """These are the rows now."""
        samplings = [answer.request.sampling for answer in answers]
        self._greedy = self._rows(row for row, sampling in enumerate(samplings) if sampling.temperature == 0)
        self._nucleus = self._rows(row for row, sampling in enumerate(samplings) if sampling.top_p < 1)

    def _rows(self, rows: Iterable[int]) -> torch.Tensor | None:
        numbers = list(rows)
        return torch.tensor(numbers, device=self._whole.device) if numbers else None

    def tokens(self, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and positions of the first rows."""
        return self._whole[0, :num_rows], self._whole[1, :num_rows]

    @torch.inference_mode()
    def draw(self, logits_RV: torch.Tensor) -> tuple[list[int], list[float]]:
        """The next token of each row and its log-probability; NaN where the logits are not numbers."""
        num_rows = len(logits_RV)
        temperature, top_p = self._real[:, :num_rows]
        uniform = uniforms(self._whole[3, :num_rows], self._whole[2, :num_rows])
        token, logprob = draw(logits_RV, temperature, top_p, uniform, self._greedy, self._nucleus)
        self._whole[0, :num_rows] = token
        self._whole[1:3, :num_rows] += 1
        tokens, logprobs = torch.stack((token.double(), logprob.double())).tolist()  # one wait for the device
        return [int(token) for token in tokens], logprobs
