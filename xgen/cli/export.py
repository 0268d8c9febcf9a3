"""`xgen export`: a checkpoint as a folder that Hugging Face's transformers loads, written here and now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xgen.cli import completion
from xgen.cli.common import ClusterOption, JsonOption, find_checkpoint, print_json, usage

if TYPE_CHECKING:
    from xgen.train.export import Exported


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A run, and the step of one of its checkpoints. Default: the newest complete one.",
            metavar="RUN[@STEP]",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write. Default: export/step-N in the run directory."),
    ] = None,
    dtype: Annotated[Literal["bfloat16", "float32"], typer.Option("--dtype", help="Of the weights.")] = "bfloat16",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE",
            help="A tokenizer.json, or a folder with one. Default: that of the run's data.",
        ),
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint of a run as a model that AutoModelForCausalLM.from_pretrained loads."""
    run, step = find_checkpoint(checkpoint, cluster)
    from xgen.images.progress import Silent, Terminal
    from xgen.runs import Refused

    try:
        from xgen.train.export import export
    except ModuleNotFoundError as error:
        usage(f"xgen export needs {error.name}: pip install 'xgen[train]', or submit a job of the kind export")
    shown = Terminal(sys.stderr) if sys.stderr.isatty() else Silent()
    try:
        done = export(run, step, out and out.resolve(), tokenizer, dtype, shown.step)
    except Refused as error:
        usage(str(error))
    if as_json:
        print_json(_facts(done))
        return
    from xgen.spec.units import format_bytes

    record = done.record
    said = "" if done.new else "  was there already, whole and the same"
    print(f"{record.run}@{record.step}  {done.folder}{said}")
    print(f"  {done.num_parameters:,} parameters in {record.dtype}, {format_bytes(record.num_bytes)}")


def _facts(done: Exported) -> dict[str, object]:
    return {
        "run": done.record.run,
        "step": done.record.step,
        "path": done.folder,
        "dtype": done.record.dtype,
        "parameters": done.num_parameters,
        "bytes": done.record.num_bytes,
        "new": done.new,
    }
