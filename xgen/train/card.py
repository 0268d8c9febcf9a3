"""The README.md of an exported model: what the run's own files say of it, and nothing that nobody measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xgen.data.errors import StoreError
from xgen.data.meta import StoreMeta, read_meta
from xgen.runs import RunDir
from xgen.runs.origin import Beginning, Origin, read_beginning, read_origin
from xgen.spec import ChatSource, Place, Preference, Pretrain, Rl, Sft, Trained
from xgen.train.manifest import Manifest


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from."""

    run: str
    job: Trained
    manifest: Manifest
    origin: Origin | None
    beginning: Beginning | None
    commit: str  # '' outside a checkout
    changed: bool  # whether the code had changes that are in no commit
    stores: Mapping[str, StoreMeta]  # those that can still be read


def provenance_of(run: RunDir, job: Trained, manifest: Manifest) -> Provenance:
    """Raises OSError where the run cannot be read."""
    stores = {}
    for name, folder in job.data.folders.items() if isinstance(job, Pretrain) else ():
        try:
            stores[name] = read_meta(Path(folder))
        except (StoreError, OSError):
            continue  # a store may be gone long before its models
    commit, diff = run.path / "code.commit", run.path / "code.diff"
    return Provenance(
        run=run.name,
        job=job,
        manifest=manifest,
        origin=read_origin(run),
        beginning=read_beginning(run),
        commit=commit.read_text().strip() if commit.is_file() else "",
        changed=diff.is_file() and diff.stat().st_size > 0,
        stores=stores,
    )


def model_card(of: Provenance, architecture: str, dtype: str) -> str:
    """Markdown, with the front matter that the Hugging Face Hub reads."""
    model, step = of.job.model, of.manifest.step
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---",
        f"# {of.run}, step {step}",
        f"A decoder of {model.num_parameters:,} parameters (`{architecture}`, {dtype}), written by xgen from a "
        f"verified checkpoint. {_what(of.job)}",
        _table(
            ("size", "value"),
            [
                ("layers", f"{model.num_layers}"),
                ("width", f"{model.dim:,}"),
                ("heads, of them for keys and values", f"{model.num_heads}, {model.num_kv_heads}"),
                ("width of a head", f"{model.head_dim}"),
                ("width of the SwiGLU layer", f"{model.ffn_dim:,}"),
                ("vocabulary", f"{model.vocab_size:,}"),
                ("norm of queries and keys", "yes" if model.qk_norm else "no"),
            ],
        ),
        "## Training",
        _table(("", ""), list(_facts(of))),
        _table(
            ("stage", "steps", "tokens", "sequence", "RoPE base", "RoPE scaling", "mixture"),
            [_stage(of.job, place, step) for place in of.job.places if place.first_step < step],
        ),
        "## Data",
        *_data(of),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(of: Provenance) -> Iterator[tuple[str, str]]:
    yield "run", of.run
    if of.origin:
        yield (
            "forked from",
            f"{of.origin.checkpoint}; what is said here of steps up to that one is said of this run's spec",
        )
    if of.beginning:
        yield "trained further from", str(of.beginning)
    if lora := of.job.adapters:
        yield "trained weights", f"low-rank updates of rank {lora.rank} of {', '.join(lora.targets)}, merged here"
    yield "step", f"{of.manifest.step:,}"
    yield "tokens", f"{of.manifest.tokens:,}"
    if of.manifest.data_digest:
        yield "digest of all data", f"`{of.manifest.data_digest}`"
    yield "order of the data", f"`{of.manifest.data}`"
    yield "seed", str(of.job.seed)
    if of.commit:
        yield "code", f"`{of.commit}`" + (", with changes that are in no commit" if of.changed else "")
    yield "software", f"torch {of.manifest.torch}, torchtitan {of.manifest.torchtitan}"


def _stage(job: Trained, place: Place, step: int) -> tuple[str, ...]:
    """As far as it was trained."""
    stage, last = place.stage, min(step, place.last_step)
    part = "" if last == place.last_step else f" of {place.last_step:,}"
    shares = job.shares(stage) if isinstance(job, Pretrain) else _sources(job)
    whole = sum(share.weight for share in shares.values())
    scaling = stage.rope_scaling
    return (
        stage.name,
        f"{place.first_step + 1:,} to {last:,}{part}",
        f"{place.tokens_at(last) - place.first_token:,}",
        f"{stage.seq_len:,}",
        f"{stage.rope_theta:g}",
        f"YaRN, {scaling.factor:g} times {scaling.original:,}" if scaling else "none",
        ", ".join(f"{name} {share.weight / whole:.1%}" for name, share in shares.items()) or "all in proportion",
    )


def _what(job: Trained) -> str:
    match job:
        case Sft():
            return "It was fine-tuned on conversations, and answers in the format of its chat template."
        case Preference():
            return "It learnt from pairs of which one answer is better, and answers in the format of its chat template."
        case Rl():
            return "It learnt from rewards for its own answers, and answers in the format of its chat template."
        case _:
            return "It continues text; it was not taught to follow instructions."


def _sources(job: Trained) -> Mapping[str, ChatSource]:
    match job:
        case Sft() | Preference():
            return job.data.sources
        case Rl():
            return job.prompts.sources
        case _:
            return {}


def _data(of: Provenance) -> Iterator[str]:
    if isinstance(of.job, Pretrain):
        packed = of.job.data.packing == "best_fit"
        yield (
            "Documents are packed into sequences and see only themselves."
            if packed
            else "Sequences are plain windows over the text."
        )
        yield _table(("store", "documents", "tokens", "sources and their licences"), list(_stores(of, of.job)))
        return
    yield "Conversations are packed into sequences and see only themselves."
    # A path of ours says nothing elsewhere.
    yield _table(
        ("source", "file"),
        [(name, source.path.rstrip("/").rpartition("/")[2]) for name, source in _sources(of.job).items()],
    )


def _stores(of: Provenance, job: Pretrain) -> Iterator[tuple[str, ...]]:
    for name, folder in job.data.folders.items():
        shown = f"{Path(folder).name}" if name == "main" else name  # a path of ours says nothing elsewhere
        if (meta := of.stores.get(name)) is None:
            yield shown, "-", "-", "-"
            continue
        sources = ", ".join(f"{source.name} ({source.licence})" for source in meta.sources) or "-"
        yield f"{shown} `{meta.fingerprint}`", f"{meta.num_documents:,}", f"{meta.num_tokens:,}", sources


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
