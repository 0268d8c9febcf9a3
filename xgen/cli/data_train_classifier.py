"""`xgen data train-classifier`: labelled documents become a classifier that curation uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import JsonOption, print_json, usage

if TYPE_CHECKING:
    from collections import Counter

    from xgen.data.curate.classify.model import Model

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the model; appears whole or not at all.")]
LabelOption = Annotated[
    list[str],
    typer.Option(
        "--label",
        metavar="NAME=PATH",
        help="Documents of a label: what --input of xgen data build takes. Repeated; a name may have several paths.",
    ),
]
KindOption = Annotated[
    str, typer.Option("--kind", metavar="quality|domain", help="quality: the labels are good and bad.")
]
StageOption = Annotated[
    str,
    typer.Option("--stage", metavar="fast|ensemble", help="fast: for every document; ensemble: for those that passed."),
]
SampleOption = Annotated[
    list[str] | None,
    typer.Option("--sample", metavar="PATH", help="Documents of the corpus: ten quality bands of equal bytes."),
]
TextKey = Annotated[str, typer.Option("--text-key", metavar="KEY", help="Key of the text in a record.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the split and the order.")]


def command(
    out: OutArgument,
    labels: LabelOption,
    kind: KindOption = "quality",
    stage: StageOption = "fast",
    sample: SampleOption = None,
    text_key: TextKey = "text",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier on documents with labels, and say how good it is on some that it has not seen.

    The same documents give the same bytes. The figures stay in the model's model.json. For example:

    xgen data train-classifier models/quality --label good=/raw/wiki --label bad=/raw/spam.jsonl.zst
    """
    import time
    from collections import Counter

    from xgen.data.curate.classify.train import Recipe, train
    from xgen.data.errors import StoreError
    from xgen.data.progress import show_progress

    for option, value, known in (
        ("--kind", kind, ("quality", "domain")),
        ("--stage", stage, ("fast", "ensemble")),
    ):
        if value not in known:
            usage(f"{option} {value!r} is not known; write {' or '.join(known)}")
    if sample and kind != "quality":
        usage(f"--sample gives quality bands, and a {kind} model has none; leave it out")
    paths: dict[str, list[str]] = {}
    for label in labels:
        name, sign, path = label.partition("=")
        if not (name and sign and path):
            usage(f"--label {label!r} names no label and path; write --label NAME=PATH")
        paths.setdefault(name, []).append(path)
    bad: Counter[str] = Counter()
    recipe = Recipe(kind=kind, stage=stage, seed=seed)  # type: ignore[arg-type]
    began = time.monotonic()
    try:
        with show_progress() as progress:
            seeds = {name: list(_texts(found, text_key, bad)) for name, found in paths.items()}
            model = train(out, seeds, recipe, _texts(sample, text_key, bad) if sample else None, progress)
    except StoreError as error:
        usage(str(error))
    seconds = time.monotonic() - began
    if as_json:
        facts = {"model": str(out), "fingerprint": model.fingerprint, "seconds": round(seconds, 2), "not_read": bad}
        print_json({**facts, **model.meta.model_dump(mode="json")})
        return
    print(f"{out}  fingerprint {model.fingerprint}, trained in {seconds:.1f} s")
    print(_table(model))
    for reason, count in bad.most_common(5):
        print(f"  not read: {count:,}  {reason}")


def _texts(inputs: list[str], text_key: str, bad: Counter[str]) -> Iterator[str]:
    """Texts of `inputs`; what could not be read is counted by reason."""
    from xgen.data.readers import Bad, Defaults, Keys, read_unit
    from xgen.data.units import plan_units

    for unit in plan_units(inputs).units:
        for record in read_unit(unit, Keys(text=text_key), Defaults("seed", "seed")):
            if isinstance(record, Bad):
                bad[record.kind] += 1
            else:
                yield record.text


def _table(model: Model) -> str:
    meta, found = model.meta, model.meta.figures
    lines = [
        f"  {'label':<16}{'documents':>11}{'left out':>10}{'held out':>10}{'AUC':>8}{'precision':>11}{'recall':>8}"
    ]
    for name, seed in meta.seeds.items():
        label = found.labels[name]
        row = f"{seed.documents:>11,}{seed.duplicates + seed.ambiguous:>10,}{label.documents:>10,}"
        lines.append(f"  {name:<16}{row}{label.auc:>8.4f}{label.precision:>11.3f}{label.recall:>8.3f}")
    lines.append(
        f"  on {found.documents:,} held-out documents: accuracy {found.accuracy:.3f}, log loss {found.log_loss:.3f}, "
        f"calibration error {found.ece:.3f}"
    )
    for cut in meta.cuts:
        lines.append(
            f"  at log-odds {cut.log_odds:>7.3f}: {cut.kept:.1%} of {meta.labels[0]} stays, "
            f"{cut.rejected:.1%} of {meta.labels[1]} goes"
        )
    return "\n".join(lines)
