"""`xgen lengths`: did the extension of the context work, and what did it cost?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage


def command(
    run: RunArgument,
    lengths: Annotated[
        str | None, typer.Option("--at", metavar="LENGTHS", help="E.g. 4k,32k,128k. Default: those of the stages.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="FOLDER", help="Held-out text; default: validation.store."),
    ] = None,
    tokens: Annotated[str, typer.Option("--tokens", metavar="N", help="Of each domain, e.g. 100k.")] = "100k",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the loss of each stage's newest checkpoint on held-out text, at each length.

    In every column the loss should fall, or stay: a stage that extends the context must not harm shorter texts.
    """
    from xgen.runs import Refused
    from xgen.spec import Pretrain, Validation, load_resolved
    from xgen.spec.units import parse_length, parse_tokens

    found = find_run(run, cluster)
    job = load_resolved(found.spec_file)
    if not isinstance(job, Pretrain):
        usage(f"{found.name} is a {job.kind} run: only training has checkpoints of stages")
    try:
        wanted = [parse_length(part) for part in lengths.split(",")] if lengths else None
        budget = parse_tokens(tokens)
    except ValueError as error:
        usage(str(error))
    if store is not None:
        job = job.model_copy(update={"validation": Validation(store=store)})
    from xgen.data import StoreError
    from xgen.train.lengths import Cell, loss_matrix

    shown = sys.stderr.isatty()

    def tell(cell: Cell) -> None:
        if shown:
            print(f"{cell.stage} at {cell.seq_len:,}: {cell.loss:.4f}", file=sys.stderr)

    at = sorted(set(wanted or [stage.seq_len for stage in job.stages]))
    try:
        cells = loss_matrix(found, job, at, budget, tell)
    except (Refused, StoreError) as error:
        usage(str(error))
    if as_json:
        print_json({"run": found.name, "lengths": at, "cells": cells})
        return
    rows = list(dict.fromkeys((cell.stage, cell.step) for cell in cells))
    width = max(len(f"{stage}@{step}") for stage, step in rows)
    print(f"{found.name}  mean loss over {len(cells[0].domains)} domains of held-out text")
    print(f"  {'':<{width}}" + "".join(f"{length:>10,}" for length in at))
    for stage, step in rows:
        losses = [cell.loss for cell in cells if cell.step == step]
        print(f"  {f'{stage}@{step}':<{width}}" + "".join(f"{loss:>10.4f}" for loss in losses))
