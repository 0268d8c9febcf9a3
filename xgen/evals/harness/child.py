"""Runs in the environment that has lm-eval: `python -I child.py FD <ORDER`. Nothing of xgen is imported here.

ORDER is one JSON object, by the parent (xgen.evals.harness.process). What comes back are lines of JSON on the
descriptor FD, so that whatever libraries print stays out of them:

    {"beat": TEXT}         work goes on
    {"task": {…}}          what a task is: its documents, and the metric that is its score
    {"sample": {…}}        a document is scored
    {"refused": TEXT}      no other try can help
    {"failed": TEXT}       another may
    {"crashed": TEXT}      so may it here; the traceback is printed

Documents are scored one chunk of `batch` at a time, through lm-eval's own tasks, filters and models, as its `evaluate`
does (lm_eval/evaluator.py, 0.4.13). What differs: few-shot examples are drawn for every document in order, whether it
is asked for or not, so that a document has the same examples in every shard, which are those of a whole run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

SEED, FEWSHOT_SEED = 0, 1234  # of lm_eval.defaults
PREFERRED = ("exact_match", "acc_norm", "acc")


class Refused(Exception):  # noqa: N818 - as xgen.runs names it
    pass


class Failed(Exception):  # noqa: N818
    pass


def main() -> None:
    order = json.load(sys.stdin)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        try:
            for line in score(order) if order["model"] else describe(order):
                send(out, line)
        except Refused as error:
            send(out, {"refused": str(error)})
        except Failed as error:
            send(out, {"failed": str(error)})
        except Exception as error:  # noqa: BLE001 - the parent decides what another try may help
            traceback.print_exc()
            send(out, {"crashed": said(error)})
            sys.exit(1)


def send(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]


# Tasks


def describe(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What every entry stands for. A group with a score of its own is one task, any other its tasks."""
    manager = open_manager(order["include"], [entry["task"] for entry in order["entries"]])
    for entry in order["entries"]:
        yield {"beat": entry["name"]}
        loaded = load(manager, entry["task"], order["datasets"])
        for name, (group, tasks) in units(entry["task"], loaded).items():
            described = [part_of(task, name, entry["shots"]) for task in tasks]
            metric = entry["metric"] or metric_of(group, tasks[0])
            for task in tasks:
                check_metric(task, metric)
            yield {
                "task": {
                    "entry": entry["name"],
                    "name": entry["name"] if name == entry["task"] else name,
                    "metric": metric,
                    "parts": described,
                }
            }


def open_manager(include: str | None, names: list[str]) -> Any:
    """lm-eval's tasks, and those of the folder. Its own are 15,000 files of YAML: read only if they are needed."""
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise Refused(
            f"{error.name} is not in the environment of {sys.executable}; write pip install 'lm_eval[hf]==0.4.13' "
            "there, or harness.python: the interpreter of an environment that has it"
        ) from error
    if include:
        manager = TaskManager(include_path=include, include_defaults=False)
        if all(closed(manager.task_index, name) for name in names):
            return manager
    manager = TaskManager(include_path=include)
    for name in names:
        if name not in manager.task_index:
            where = f"lm-eval, nor in {include}" if include else "lm-eval"
            raise Refused(f"harness: there is no task {name!r} in {where}; `lm-eval ls tasks` lists them")
    return manager


def closed(index: Any, name: Any) -> bool:
    """Whether the index has the task, and of a group all that it is made of."""
    if not isinstance(name, str) or name not in index:
        return False
    members = (index[name].cfg or {}).get("task")
    return all(closed(index, member) for member in members) if isinstance(members, list) else True


def load(manager: Any, name: str, datasets: str | None) -> Any:
    """Tasks with their documents; without `datasets` they may be fetched. Some shuffle at random as they load: from the
    same state every time."""
    import numpy

    random.seed(SEED)
    numpy.random.seed(FEWSHOT_SEED)
    config = manager.task_index[name].cfg or {}
    if config.get("unsafe_code"):  # before its module is imported, which fetches what runs the code
        refuse_code(name)
    try:
        return manager.load([name])
    except OSError as error:
        if datasets is None:
            raise Failed(f"harness: the data set of task {name} did not come: {said(error)}") from error
        if isinstance(error, FileNotFoundError | ConnectionError):
            raise Refused(missing(name, error, datasets)) from error
        raise
    except ValueError as error:
        is_missing = datasets is not None and "find cache" in str(error)
        raise Refused(missing(name, error, str(datasets)) if is_missing else broken(name, error)) from error
    except (ImportError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise Refused(broken(name, error)) from error


def missing(name: str, error: BaseException, datasets: str) -> str:
    fix = "write `xgen evals fetch SPEC` where there is a network"
    return f"harness: the data set of task {name} is not in {datasets} ({said(error)}); {fix}"


def broken(name: str, error: BaseException) -> str:
    return f"harness: task {name} cannot be loaded by lm-eval: {said(error)}"


def refuse_code(name: str) -> None:
    raise Refused(
        f"harness: task {name} runs the code that the model writes, and lm-eval runs it unconfined; leave it out"
    )


def units(name: str, loaded: Any) -> dict[str, tuple[Any, list[Any]]]:
    """By name: the group and its tasks, or None and the one task."""
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            refuse_code(task.task_name)
    group = loaded["groups"].get(name)
    if group is None or not group.aggregate_metric_list:
        return {task: (None, [of]) for task, of in loaded["tasks"].items()}
    if not all(metric.weight_by_size for metric in group.aggregate_metric_list):
        raise Refused(f"harness: group {name} counts its tasks alike, whatever their size; name its tasks instead")
    return {name: (group, list(loaded["tasks"].values()))}


def part_of(task: Any, name: str, shots: int | None) -> list[Any]:
    """[task, documents]. Raises Refused where the task would not take the shots: lm-eval leaves 0 as it is."""
    if shots and task.get_config("num_fewshot") == 0:
        raise Refused(f"harness: {task.task_name} has no shots by its own file, and {shots} are asked of {name}")
    return [task.task_name, len(task.eval_docs)]


def metric_of(group: Any, task: Any) -> str:
    """The group's own choice, else of the means the best known one; of several filters the first."""
    if group is not None:
        first = group.aggregate_metric_list[0]
        names, filters = [first.metric], first.filter_list or filters_of(task)
    else:
        means = [name for name, of in task.aggregation().items() if getattr(of, "__name__", "") == "mean"]
        names = [name for name in PREFERRED if name in means] or means
        filters = filters_of(task)
    if not names:
        has = ", ".join(task.aggregation())
        raise Refused(f"harness: task {task.task_name} gives a document no score of its own ({has}); leave it out")
    return key_of(names[0], filters[0])


def check_metric(task: Any, metric: str) -> None:
    name, _, named = metric.partition(",")
    if name not in task.aggregation() or (named or "none") not in filters_of(task):
        has = ", ".join(key_of(one, filter_) for filter_ in filters_of(task) for one in task.aggregation())
        raise Refused(f"harness: task {task.task_name} has no metric {metric}; it has {has}")


def filters_of(task: Any) -> list[str]:
    return [one.name for one in task._filters]


def key_of(metric: str, named: str) -> str:
    return metric if named == "none" else f"{metric},{named}"


# Scores


def score(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for every document asked for. The model is loaded once, after the tasks of the first entry."""
    manager = open_manager(order["include"], [entry["task"] for entry in order["entries"]])
    model = None
    for entry in order["entries"]:
        yield {"beat": entry["name"]}
        tasks = load(manager, entry["task"], order["datasets"])["tasks"]
        if model is None:
            yield {"beat": "model"}
            model = open_model(order["model"])
        for name, indices in entry["parts"].items():
            yield from score_task(tasks[name], model, order["model"], entry, sorted(indices))


def open_model(wanted: dict[str, Any]) -> Any:
    from lm_eval.api.registry import get_model

    arguments = {"pretrained": wanted["folder"], "dtype": wanted["dtype"], "batch_size": wanted["batch"]}
    if wanted["kind"] == "hf":
        arguments["device"] = "auto"  # no name of one: a GPU if there is any
    try:
        model = get_model(wanted["kind"])(**arguments, **wanted["arguments"])
    except (ImportError, TypeError) as error:
        raise Refused(f"harness.model: {wanted['kind']} in {sys.executable}: {said(error)}") from error
    if wanted["chat"] and not getattr(model.tokenizer, "chat_template", None):
        raise Refused("harness.chat: the tokenizer of what is scored has no chat template; write chat: false")
    return model


def score_task(
    task: Any, model: Any, wanted: dict[str, Any], entry: dict[str, Any], indices: list[int]
) -> Iterator[dict[str, Any]]:
    docs = task.eval_docs
    if entry["shots"] is not None and task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=entry["shots"])
    shots = task.get_config("num_fewshot") or 0
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    drawn = 0
    for first in range(0, len(indices), wanted["batch"]):
        began, chunk = time.perf_counter(), []
        for index in indices[first : first + wanted["batch"]]:
            for skipped in range(drawn, index if shots else 0):
                draw(task, docs, skipped, shots)
            chunk.append((index, docs[index], requests_of(task, model, docs[index], index, shots, wanted["chat"])))
            drawn = index + 1
        answer(model, [request for *_, requests in chunk for request in requests])
        task._instances = [request for *_, requests in chunk for request in requests]
        task.apply_filters()
        seconds = (time.perf_counter() - began) / len(chunk)
        for index, doc, requests in chunk:
            sample = sample_of(task, model, doc, requests, entry["metrics"][task.task_name])
            where = {"entry": entry["name"], "part": task.task_name, "doc": index}
            yield {"sample": where | sample | {"seconds": seconds}}


def draw(task: Any, docs: Any, index: int, shots: int) -> None:
    """Take the few-shot examples of a document that is not asked for, as `fewshot_context` would."""
    if not hasattr(task, "sampler"):
        task.fewshot_context(docs[index], shots)
        return
    own = task.fewshot_cfg.split == task.config.test_split
    task.sampler.sample(n=shots, eval_doc=docs[index] if own else None)


def requests_of(task: Any, model: Any, doc: Any, index: int, shots: int, chat: bool) -> list[Any]:
    template = model.apply_chat_template if chat else None
    context = task.fewshot_context(
        doc, num_fewshot=shots, system_instruction=None, apply_chat_template=chat, fewshot_as_multiturn=True,
        chat_template=template, gen_prefix=task.doc_to_prefix(doc),
    )  # fmt: skip
    made = task.construct_requests(
        doc=doc, ctx=context, metadata=(task.config["task"], index, task.config.repeats), apply_chat_template=chat,
        chat_template=template,
    )  # fmt: skip
    return list(made) if isinstance(made, list) else [made]


def answer(model: Any, requests: list[Any]) -> None:
    for kind in dict.fromkeys(request.request_type for request in requests):
        asked = [one for one in requests if one.request_type == kind for _ in range(one.repeats)]
        for response, request in zip(getattr(model, kind)(asked, disable_tqdm=True), asked, strict=True):
            request.resps.append(response)


def sample_of(task: Any, model: Any, doc: Any, requests: list[Any], metric: str) -> dict[str, Any]:
    values = {}
    for named in requests[0].filtered_resps:
        results = task.process_results(doc, [request.filtered_resps[named] for request in requests])
        for name, value in results.items():
            if isinstance(value, int | float) or hasattr(value, "dtype"):
                values[key_of(name, named)] = float(value)
    scored = values.pop(metric, math.nan)
    if not 0 <= scored <= 1:
        raise Refused(f"harness: {metric} of task {task.task_name} is {scored}, no score from 0 to 1; leave it out")
    arguments = [request.args for request in requests]
    texts = [text for args in arguments for text in args if isinstance(text, str) and text]
    tokens = {text: len(model.tok_encode(text)) for text in set(texts)}
    return {
        "score": scored,
        "values": {name: value for name, value in values.items() if math.isfinite(value)},
        "answer": answered(requests),
        "tokens": sum(tokens[text] for text in texts),
        "digest": hashlib.sha256(json.dumps(arguments, default=str).encode()).hexdigest()[:16],
    }


def answered(requests: list[Any]) -> str:
    """The text of an answer; of choices their log-likelihoods in nats."""
    if requests[0].request_type == "generate_until":
        return str(requests[0].resps[0])[:500]
    responses = [response for request in requests for response in request.resps]
    return " ".join(f"{one[0] if isinstance(one, tuple) else one:.6f}" for one in responses)


if __name__ == "__main__":
    main()
