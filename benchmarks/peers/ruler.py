"""Runs in the peers' environment: python ruler.py TOKENIZER HAYSTACK LENGTH COUNT OUT. lm-eval's RULER, offline.

Generates COUNT samples of each task that its generator can make from local text, writes them as JSON lines to OUT, and
prints seconds by task. Two things are replaced, since they fetch: the essays are HAYSTACK, and nltk's sentences are
split at full stops. The number of samples, fixed to 500 there, is COUNT.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nltk
import numpy as np

nltk.data.find = lambda *_: None
nltk.sent_tokenize = lambda text: re.split(r"(?<=[.!?]) (?=[A-Z0-9])", text)

from lm_eval.tasks.ruler import cwe_utils, fwe_utils, niah_utils, vt_utils  # noqa: E402
from lm_eval.tasks.ruler.common_utils import get_tokenizer  # noqa: E402
from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack  # noqa: E402


def main() -> None:
    folder, haystack, length, count, out = sys.argv[1:]
    words = " ".join(Path(haystack).read_text(encoding="utf-8").split()).split(" ")
    tokenizer = get_tokenizer(tokenizer=folder)
    niah_utils.get_haystack = lambda type_haystack: words if type_haystack == "essay" else get_haystack(type_haystack)
    niah_utils.generate_samples = lambda *args, **kwargs: generate_samples(
        *args, **kwargs | {"num_samples": int(count)}
    )
    of: dict[str, Any] = {"tokenizer": tokenizer, "max_seq_length": int(length), "num_samples": int(count)}

    def chains() -> list[dict[str, Any]]:
        make = vt_utils.sys_vartrack_w_noise_random
        example = make(tokenizer=tokenizer, num_samples=1, max_seq_length=500, incremental=5)[0]
        return list(make(**of, icl_example=example))

    def needles(name: str) -> Callable[[], list[dict[str, Any]]]:
        make = getattr(niah_utils, name)
        return lambda: list(make(tokenizer=folder, max_seq_lengths=[int(length)])["test"])

    names = ["single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3", "multivalue", "multiquery"]
    tasks = {f"niah_{name}": needles(f"niah_{name}") for name in names}
    tasks |= {
        "vt": chains,
        "cwe": lambda: cwe_utils.sys_word_pair_random(**of),
        "fwe": lambda: fwe_utils.sys_kwext(**of),
    }
    seconds = {}
    with Path(out).open("w", encoding="utf-8") as file:
        for task, make in tasks.items():
            random.seed(42)
            np.random.seed(42)
            began = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                samples = make()
            seconds[task] = time.perf_counter() - began
            for sample in samples:
                example = sample.get("input_example", "")
                text = example + "\n" + sample["input"] if example else sample["input"]
                kept = {"task": task, "input": text, "answer_prefix": " " + sample["gen_prefix"]}
                file.write(json.dumps(kept | {"outputs": sample["outputs"]}) + "\n")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
