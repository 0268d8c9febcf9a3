"""RULER's samples on the command line: `python -m xgen.evals.ruler --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from xgen.data.errors import StoreError
from xgen.evals.ruler.haystack import Haystack
from xgen.evals.ruler.questions import Questions
from xgen.evals.ruler.ruler import Ruler
from xgen.evals.ruler.tasks import LENGTHS, TASKS
from xgen.evals.ruler.tokens import Counter

_EXAMPLES = """\
examples:
  three samples of a needle in noise, at 4096 tokens of this model:
    python -m xgen.evals.ruler --tokenizer Qwen3-4B/tokenizer.json --task niah_single_1 --count 3 --out needles.jsonl
  all tasks at 32k and 128k; the haystack is any text, the question sets are SQuAD's and HotpotQA's JSON files:
    python -m xgen.evals.ruler --tokenizer Qwen3-4B --haystack essays/ --qa_1 dev-v2.0.json \\
        --qa_2 hotpot_dev_distractor_v1.json --length 32768 131072 --count 500 --out ruler.jsonl
  samples 500 to 599, which are the same as in any larger set of this seed:
    python -m xgen.evals.ruler ... --first 500 --count 100

A line of the output: task, length, index, seed, input, answer_prefix, outputs, tokens (with the answer room), haystack.
A model reads input + answer_prefix; the score is the share of outputs that its answer contains.
"""


def main() -> None:
    try:
        _write(_arguments())
    except StoreError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m xgen.evals.ruler",
        description="Make samples of RULER: exactly as long as asked in this tokenizer, the same for the same seed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tokenizer", type=Path, required=True, metavar="T", help="tokenizer.json of the model, or its folder")
    add("--haystack", type=Path, metavar="F", help="text, or folder of .txt and .md files, that hides the needles")
    add("--qa_1", type=Path, metavar="F", help="question set in SQuAD's JSON")
    add("--qa_2", type=Path, metavar="F", help="question set in HotpotQA's JSON")
    add("--task", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=f"of {', '.join(TASKS)}")
    add("--length", nargs="+", type=int, default=[LENGTHS[0]], metavar="N", help="tokens with answer (4096)")
    add("--count", type=int, default=1, metavar="N", help="samples of each task at each length (1)")
    add("--first", type=int, default=0, metavar="N", help="index of the first sample (0)")
    add("--seed", type=int, default=42, metavar="N", help="(42)")
    add("--reserved", type=int, default=0, metavar="N", help="tokens left free for a chat template (0)")
    add("--cache", type=Path, default=_cache(), metavar="DIR", help="where token counts are kept (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="write JSON lines there; without it, to the output")
    return parser.parse_args()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xgen/ruler"


def _write(arguments: argparse.Namespace) -> None:
    haystack = Haystack.read(arguments.haystack) if arguments.haystack else None
    sets = {name: Questions.read(path) for name in ("qa_1", "qa_2") if (path := getattr(arguments, name))}
    ruler = Ruler(Counter.load(arguments.tokenizer, arguments.cache), haystack, sets)
    out: Path | None = arguments.out
    if out and out.exists() and not out.is_file():
        raise StoreError(out, "is no file", "name a file with --out, or leave it out for the output")
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp") if out else None
    try:
        with partial.open("w", encoding="utf-8") if partial else os.fdopen(os.dup(1), "w", encoding="utf-8") as file:
            for task in arguments.task:
                for length in arguments.length:
                    recipes = ruler.plan(
                        task,
                        length,
                        arguments.count,
                        arguments.seed,
                        first=arguments.first,
                        reserved=arguments.reserved,
                    )
                    for recipe in recipes:
                        fitted = ruler.fit(recipe)
                        line = {
                            "task": task, "length": length, "index": recipe.index, "seed": recipe.seed,
                            "input": fitted.sample.input, "answer_prefix": fitted.sample.answer_prefix,
                            "outputs": fitted.sample.outputs,
                            "tokens": len(fitted.ids) + TASKS[task].answer_tokens,
                            "haystack": ruler.source(task),
                        }  # fmt: skip
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if partial and out:
            partial.replace(out)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise StoreError(out or "output", f"cannot be written: {error.strerror}", "name another --out") from None
    finally:
        if partial:
            partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
