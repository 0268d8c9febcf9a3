"""Draw every panel of a dashboard against a live Prometheus into one PNG.

    python monitoring/draw.py --prometheus http://127.0.0.1:19090 --run tiny-k3f9ab --out run.png
    python monitoring/draw.py --prometheus http://127.0.0.1:19090 --dashboard monitoring/dashboards/fleet.json \\
        --variable user=ann --out fleet.png

Exit code 1 names the panels that failed or had no data; the picture is written all the same. Grafana is not needed:
this proves the queries and shows the layout, colours and units of the same JSON that Grafana loads. Where a panel says
"none…" without data, and where a column does, emptiness is an answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure
from picture import theme
from picture.canvas import Box, Canvas, no_data, time_form
from picture.dashboard import Dashboard, Panel, load
from picture.paint import PAINTERS
from picture.prometheus import Prometheus, QueryError, Series, Window
from picture.table import columns_without_data

_DASHBOARD = Path(__file__).parent / "dashboards" / "run.json"
_WIDTH, _ROW, _HEADER, _GAP = 1600, 33, 58, 8  # pixels
_DPI = 100
_CHOSEN = 72  # characters of the variables' values


def main() -> int:
    arguments = _arguments()
    try:
        dashboard = load(arguments.dashboard)
        window = Window(_variables(dashboard, arguments), arguments.start, arguments.end)
        prometheus = Prometheus(arguments.prometheus, window)
        figure, faults = draw(dashboard, prometheus, window, strict=arguments.strict)
    except QueryError as error:
        print(f"draw: {error}", file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=_DPI, facecolor=theme.PAGE)
    for fault in faults:
        print(f"draw: {fault}", file=sys.stderr)
    print(arguments.out)
    return 1 if faults else 0


def draw(
    dashboard: Dashboard, prometheus: Prometheus, window: Window, *, strict: bool = False
) -> tuple[Figure, list[str]]:
    """The picture, and a line for each panel that has an error or no data; `strict`: whatever it says then."""
    mpl.rcParams["font.family"] = ["sans-serif"]
    mpl.rcParams["font.sans-serif"] = ["Inter", "Roboto", "Liberation Sans", "DejaVu Sans"]
    mpl.rcParams["font.weight"] = "normal"
    rows = max(panel.grid_pos.y + panel.grid_pos.h for panel in dashboard.panels)
    height = _HEADER + rows * _ROW + _GAP
    figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
    queries = [query for query in dashboard.annotations.queries if query.enable]
    marks = [mark for row, query in enumerate(queries) for mark in prometheus.marks(query, row)]
    canvas = Canvas(figure, window, prometheus.step, marks)
    _header(canvas, dashboard, height)
    faults: list[str] = []
    for panel in dashboard.panels:
        box = _box(panel, height)
        data, fault = _data(prometheus, panel, strict)
        if fault:
            faults.append(f"panel {panel.title!r}: {fault}")
        if any(data):
            tables = any(target.format == "table" for target in panel.targets)
            PAINTERS[panel.type](canvas, panel, box, data if tables else [target for target in data if target])
        else:
            no_data(canvas, panel, box, panel.field_config.defaults.no_value)
    return figure, faults


def _data(prometheus: Prometheus, panel: Panel, strict: bool) -> tuple[list[list[Series]], str]:
    """The series of each target, and what is wrong with them."""
    if panel.type not in PAINTERS:
        return [], f"type {panel.type!r} is not drawn yet"
    try:
        data = prometheus.panel(panel)
    except QueryError as error:
        return [], str(error)
    if panel.type == "table":
        empty = columns_without_data(panel, data) if any(data) else ["any row"]
    else:
        empty = [t.legend_format or t.ref_id for t, series in zip(panel.targets, data, strict=True) if not series]
    answer = not strict and panel.field_config.defaults.no_value.startswith("none") and not any(data)
    return data, f"no data for {', '.join(empty)}" if empty and not answer else ""


def _header(canvas: Canvas, dashboard: Dashboard, height: int) -> None:
    middle = height - _HEADER / 2 - 2
    title = canvas.text(16, middle, dashboard.title, size=17, weight="bold", va="center", color="#ffffff")
    chosen = "  ".join(value for value in canvas.window.variables.values() if value != ".*")
    chosen = chosen if len(chosen) <= _CHOSEN else chosen[: _CHOSEN - 1] + "…"
    canvas.text(title + 14, middle, chosen, size=17, va="center", color=theme.color("blue"))
    first, last = (datetime.fromtimestamp(t, UTC) for t in (canvas.window.start, canvas.window.end))
    same_day = first.date() == last.date()
    span = f"{first:%d %b %Y  %H:%M:%S}  to  {last:{'%H:%M:%S' if same_day else '%d %b  %H:%M:%S'}} UTC"
    span += f"   |   axes: {time_form(canvas.window.end - canvas.window.start)} since the start"
    canvas.text(_WIDTH - 16, middle, span, size=11, va="center", ha="right", color=theme.FAINT)


def _box(panel: Panel, height: int) -> Box:
    """The panel's rectangle: 24 columns over the width, rows from the header down."""
    column, grid = (_WIDTH - _GAP) / 24, panel.grid_pos
    x, top = _GAP / 2 + grid.x * column, height - _HEADER - grid.y * _ROW
    return Box(x + _GAP / 2, top - grid.h * _ROW + _GAP / 2, grid.w * column - _GAP, grid.h * _ROW - _GAP)


def _variables(dashboard: Dashboard, arguments: argparse.Namespace) -> dict[str, str]:
    """A value for each variable: what is asked for, else all. Raises QueryError where that cannot be."""
    asked = dict(text.split("=", 1) for text in arguments.variable)
    if arguments.run:
        asked["run"] = arguments.run
    known = {variable.name: variable for variable in dashboard.templating.variables if variable.type == "query"}
    if unknown := asked.keys() - known.keys():
        raise QueryError(f"{dashboard.title} has no variable {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    if open_ones := [name for name in known if name not in asked and not known[name].include_all]:
        raise QueryError(f"{dashboard.title} shows no run of its own; write --variable {open_ones[0]}=NAME")
    return {name: asked.get(name, ".*") for name in known}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--prometheus", required=True, help="URL, e.g. http://127.0.0.1:19090")
    parser.add_argument("--run", help="name of the run, e.g. tiny-k3f9ab; the same as --variable run=NAME")
    parser.add_argument(
        "--variable", action="append", default=[], metavar="NAME=VALUE", help="several values: VALUE|VALUE; repeatable"
    )
    parser.add_argument("--start", type=float, help="seconds since the epoch; default: an hour before the end")
    parser.add_argument("--end", type=float, help="seconds since the epoch; default: now")
    parser.add_argument("--strict", action="store_true", help="a panel that says none without data is a fault too")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    parser.add_argument("--dashboard", type=Path, default=_DASHBOARD, help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.end = time.time() if arguments.end is None else arguments.end
    arguments.start = arguments.end - 3600 if arguments.start is None else arguments.start
    if arguments.start >= arguments.end:
        parser.error("--start must be before --end")
    if bad := [text for text in arguments.variable if "=" not in text]:
        parser.error(f"--variable {bad[0]}: write NAME=VALUE")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
