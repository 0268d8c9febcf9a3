"""`xgen data chat`: the conversations, pairs or prompts of a spec, as its training will see them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import JsonOption, SetOption, SpecArgument, WorkersOption, print_json, printable, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xgen.data.chat.meta import Kind
    from xgen.data.chat.preview import Shown
    from xgen.data.chat.samples import ChatSamples
    from xgen.data.chat.store import ChatStore
    from xgen.data.chat.tokenizer import ChatTokenizer
    from xgen.spec import Preference, Rl, Sft

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Folder of the store; default: data.out of the spec.")
]
ShowOption = Annotated[
    int, typer.Option("--show", metavar="N", min=0, help="Print N records of each source, what is learnt marked.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be read; write nothing.")]


def command(
    spec: SpecArgument,
    overrides: SetOption = None,
    out: OutOption = None,
    show: ShowOption = 0,
    dry_run: DryRunOption = False,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Prepare the chat data of an sft, preference or rl spec, and say what a training gets of it.

    Records become tokens once; a training whose spec says the same `data.out` then finds them. What is left out is
    counted by reason and listed in quarantine.jsonl. Before a training, look at what is learnt:

    xgen data chat jobs/tiny/sft.yaml --dry-run --show 2
    """
    from xgen.data.errors import InterruptedBuildError, StoreError
    from xgen.spec import Preference, Rl, Sft, load_job

    job = load_job(spec, overrides or []).job
    if not isinstance(job, Sft | Preference | Rl):
        usage(f"{spec}: kind: {job.kind} has no chat data; write the spec of an sft, preference or rl job")
    try:
        facts = _look(job) if dry_run else _prompts(job) if isinstance(job, Rl) else _prepare(job, out, workers)
        shown = list(_show(job, show)) if show else []
    except InterruptedBuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except StoreError as error:
        usage(str(error))
    if as_json:
        print_json(facts | ({"shown": [{"source": name, **asdict(one)} for name, one in shown]} if show else {}))
        return
    _print_facts(facts)
    for name, one in shown:
        _print_shown(name, one)


def _tokenizer(job: Sft | Preference | Rl) -> ChatTokenizer:
    from xgen.data.chat.tokenizer import ChatTokenizer
    from xgen.spec import Rl

    data = job.prompts if isinstance(job, Rl) else job.data
    tokenizer = ChatTokenizer.load(data.tokenizer, data.template)
    tokenizer.check_vocabulary(job.model.vocab_size)
    return tokenizer


def _about(tokenizer: ChatTokenizer) -> dict[str, Any]:
    """The template, and what of it a training should know."""
    from xgen.data.chat.preview import prompt_continues
    from xgen.data.chat.schema import RecordError

    default = tokenizer.templates["default"]
    try:
        continues = prompt_continues(tokenizer)
    except RecordError:  # it takes no conversation as plain as that
        continues = True
    return {"template": default.place, "end_of_turn": default.end_of_turn, "prompt_continues": continues}


def _sources(job: Sft | Preference | Rl) -> dict[str, str]:
    """The path of each, by split and name."""
    from xgen.spec import Rl

    data, held = (job.prompts, job.evaluation) if isinstance(job, Rl) else (job.data, job.validation)
    found = {f"train/{name}": source.path for name, source in data.sources.items()}
    return found | {f"held-out/{name}": path for name, path in (held.sources.items() if held else ())}


def _look(job: Sft | Preference | Rl) -> dict[str, Any]:
    """What would be read."""
    from xgen.data.chat.inputs import read_plan

    tokenizer = _tokenizer(job)
    plans = {name: read_plan(path) for name, path in _sources(job).items()}
    sources = {
        name: {"files": len(plan.files), "bytes": plan.num_bytes, "units": len(plan.units), "ignored": plan.ignored}
        for name, plan in plans.items()
    }
    return {**_about(tokenizer), "would_read": sources}


def _prompts(job: Rl) -> dict[str, Any]:
    from xgen.data.chat.prompts import read_evaluation, read_prompts

    prompts = read_prompts(job)
    epochs = prompts.epochs(job.train.steps * job.rollout.prompts)
    both = {"train": prompts.sources, "held-out": read_evaluation(job)}
    sources = {
        f"{split}/{name}": {
            "records": len(source.prompts),
            "tokens": source.num_tokens,
            "longest": max(len(prompt.ids) for prompt in source.prompts),
            "left_out": dict(source.left_out),
            **({"epochs": epochs[name]} if split == "train" else {}),
        }
        for split, found in both.items()
        for name, source in found.items()
    }
    return {**_about(_tokenizer(job)), "fingerprint": prompts.fingerprint, "sources": sources}


def _prepare(job: Sft | Preference, out: Path | None, workers: int) -> dict[str, Any]:
    from xgen.data.chat.order import chat_samples, epoch_of
    from xgen.data.chat.prepare import chat_store, prepare
    from xgen.data.progress import show_progress

    if out is not None:
        job = job.model_copy(update={"data": job.data.model_copy(update={"out": str(out.absolute())})})
    folder = chat_store(job)
    with show_progress() as progress:
        done = prepare(job, folder, progress=progress, workers=workers)
    assert done
    samples, store = chat_samples(job), done.store
    steps = job.train.steps * job.train.sequences
    taken = samples.taken(steps)
    sources = {}
    for source in store.sources:
        counts, own = source.meta.counts, epoch_of(store, source.meta.split, source.name)
        facts = {**counts.model_dump(exclude={"dropped"}), "left_out": counts.dropped, "sequences": own.num_samples}
        if source.meta.split == "train":
            facts |= {"share": taken[source.name] / sum(taken.values()), "epochs": taken[source.name] / counts.tokens}
        sources[source.meta.folder] = facts
    return {
        "store": str(folder),
        "written": done.written,
        **_about(_tokenizer(job)),
        **_packing(store, samples),
        "num_sequences": steps,
        "sources": sources,
    }


def _packing(store: ChatStore, samples: ChatSamples) -> dict[str, Any]:
    room = samples.num_samples * samples.seq_len
    padding = 1 - sum(samples.taken(samples.num_samples).values()) / room
    return {"fingerprint": store.meta.fingerprint, "engine": store.meta.engine, "padding": padding}


def _show(job: Sft | Preference | Rl, count: int) -> Iterator[tuple[str, Shown]]:
    """Source and record."""
    from xgen.data.chat.preview import Run, Shown, preview
    from xgen.data.chat.prompts import read_prompts
    from xgen.spec import Rl, Sft

    if isinstance(job, Rl):
        for source in read_prompts(job).sources.values():
            for prompt in source.prompts[:count]:
                answer = f"answer: {prompt.answer}" if prompt.answer else "no answer"
                yield source.name, Shown(answer, len(prompt.tokens), (Run(prompt.text, False),))
        return
    for name, path in _sources(job).items():
        kind: Kind = "conversations" if isinstance(job, Sft) else "pairs"
        for one in preview(_tokenizer(job), kind, job.data.learn, path, count):
            yield name, one


def _print_facts(facts: dict[str, Any]) -> None:
    if "store" in facts:
        state = "prepared" if facts["written"] else "up to date"
        print(f"{facts['store']}  {state}, fingerprint {facts['fingerprint']}, {facts['engine']}")
    print(f"  template {facts['template']}, an answer ends with {facts['end_of_turn'] or 'nothing special'}")
    if not facts["end_of_turn"]:
        print("  warning: a model that learns no end of its turn does not stop; write a special token after the answer")
    if not facts["prompt_continues"]:
        print(
            "  warning: the end of a prompt becomes one token with the answer's first word, so a model is asked for "
            "something else than it learnt; end the prompt with a line break or a special token"
        )
    for name, source in facts.get("would_read", {}).items():
        ignored = "".join(f", {count:,} {suffix} not read" for suffix, count in source["ignored"].items())
        print(f"  {name:<24}{source['files']:>7,} files{source['bytes'] / 1e6:>12,.1f} MB{ignored}")
    if "would_read" in facts:
        print("  nothing was written")
    if "sources" in facts:
        _print_sources(facts)


def _print_sources(facts: dict[str, Any]) -> None:
    head = ("records", "tokens", "learnt", "longest", "sequences", "share", "epochs")
    print(f"  {'source':<24}" + "".join(f"{name:>12}" for name in head))
    for name, source in facts["sources"].items():
        learnt = f"{source['learnt'] / source['tokens']:.1%}" if "learnt" in source else "-"
        share = f"{source['share']:.1%}" if "share" in source else "-"
        epochs = f"{source['epochs']:.2f}" if "epochs" in source else "-"
        sequences = f"{source['sequences']:,}" if "sequences" in source else "-"
        counts = (f"{source['records']:,}", f"{source['tokens']:,}", learnt, f"{source['longest']:,}")
        print(f"  {name:<24}" + "".join(f"{value:>12}" for value in (*counts, sequences, share, epochs)))
        if source.get("truncated"):
            print(f"    {source['truncated']:>9,}  were cut at their end")
        if source.get("quoting"):
            print(
                f"    {source['quoting']:>9,}  quote special tokens, which are text to the model: are they meant to be?"
            )
        for reason, count in sorted(source["left_out"].items(), key=lambda item: -item[1]):
            print(f"    {count:>9,}  left out: {reason}")
    if "padding" in facts:
        print(f"  the training takes {facts['num_sequences']:,} sequences, {facts['padding']:.2%} of them padding")


def _print_shown(name: str, shown: Shown) -> None:
    """What is learnt is green; between brackets where nobody sees colours."""
    begin, end = ("\x1b[1;32m", "\x1b[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    print(f"\n{name}  {shown.place}, {shown.num_tokens:,} tokens")
    runs = [(printable(run.text), run.learnt) for run in shown.runs]
    print("".join(f"{begin}{text}{end}" if learnt else text for text, learnt in runs))
