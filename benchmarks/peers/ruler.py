"""Runs in the peers' environment: python ruler.py TOKENIZER HAYSTACK LENGTH COUNT OUT TASK…. lm-eval's RULER, offline.

Generates COUNT samples of each TASK, writes them as JSON lines to OUT, and prints seconds by task. What fetches is
replaced: the essays are HAYSTACK, nltk's sentences are split at full stops, and the questions are qa_1.json and
qa_2.json beside the tokenizer. The number of samples, fixed to 500 there, is COUNT. `fwe` and `qa` shuffle all samples
of a length with one seed; those that are written have one each, to show the distribution (`fwe` is timed before).
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

from lm_eval.tasks.ruler import cwe_utils, fwe_utils, niah_utils, qa_utils, vt_utils  # noqa: E402
from lm_eval.tasks.ruler.common_utils import get_tokenizer  # noqa: E402
from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack  # noqa: E402


def main() -> None:
    folder, haystack, length, count, out, *wanted = sys.argv[1:]
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

    def asked(name: str, read: Callable[[str], Any]) -> Callable[[], list[dict[str, Any]]]:
        qa_utils.download_json = lambda path: json.loads(Path(path).read_text(encoding="utf-8"))
        questions, documents = read(f"{folder}/{name}.json")
        sized = {"tokenizer": tokenizer, "max_seq_length": int(length), "num_samples": 1}

        def make(index: int) -> dict[str, Any]:
            qa_utils.SEED = index
            return qa_utils.generate_samples(docs=documents, qas=questions, pre_samples=index, **sized)[0]

        return lambda: [make(index) for index in range(int(count))]

    def shuffled() -> list[dict[str, Any]]:
        def make(index: int) -> dict[str, Any]:
            fwe_utils.SEED = index
            return fwe_utils.sys_kwext(**of | {"num_samples": 1})[0]

        return [make(index) for index in range(int(count))]

    names = ["single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3", "multivalue", "multiquery"]
    tasks = {f"niah_{name}": needles(f"niah_{name}") for name in names}
    tasks |= {
        "vt": chains,
        "cwe": lambda: cwe_utils.sys_word_pair_random(**of),
        "fwe": lambda: fwe_utils.sys_kwext(**of),
        "qa_1": asked("qa_1", qa_utils.read_squad),
        "qa_2": asked("qa_2", qa_utils.read_hotpotqa),
    }
    seconds = {}
    with Path(out).open("w", encoding="utf-8") as file:
        for task in wanted:
            random.seed(42)
            np.random.seed(42)
            began = time.perf_counter()
            samples = quietly(tasks[task])
            seconds[task] = time.perf_counter() - began
            if task == "fwe":
                samples = quietly(shuffled)
            for sample in samples:
                example = sample.get("input_example", "")
                text = example + "\n" + sample["input"] if example else sample["input"]
                kept = {"task": task, "input": text, "answer_prefix": " " + sample["gen_prefix"]}
                file.write(json.dumps(kept | {"outputs": sample["outputs"]}) + "\n")
    print(json.dumps(seconds))


def quietly(make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return make()


if __name__ == "__main__":
    main()
