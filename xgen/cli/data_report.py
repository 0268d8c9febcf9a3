"""`xgen data report`: the page that says what a curation kept and dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xgen.cli.common import fail, usage

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a curated corpus.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Draw it into this file; default: the one in OUT.")
]


def command(out: OutArgument, html: HtmlOption = None) -> None:
    """Say where the report of a curated corpus is; draw it where it is not. Open it in a browser.

    For example: xgen data report .cache/tiny-corpus --html report.html
    """
    from xgen.data.curate.report_html import REPORT_PAGE, render_report
    from xgen.data.curate.report_model import REPORT_FILE, read_report

    file = html or out / REPORT_PAGE
    if html is None and file.is_file():
        print(file)
        return
    try:
        page = render_report(read_report(out))
        file.write_text(page, encoding="utf-8")
    except FileNotFoundError as error:
        if error.filename != str(out / REPORT_FILE):
            fail(error)
        usage(f"{out}: has no {REPORT_FILE}; write the folder `out` of a curate job that is done")
    except ValueError as error:
        usage(f"{out / REPORT_FILE}: is no report of this version of xgen: {str(error).partition(chr(10))[0]}")
    except OSError as error:
        fail(error)
    print(file)
