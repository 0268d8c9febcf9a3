"""Draw every panel of a dashboard against a live Prometheus into one PNG.

    python monitoring/draw.py --prometheus http://127.0.0.1:19090 --run tiny-k3f9ab --out run.png

Exit code 1 names the panels that failed or had no data; the picture is written all the same. Grafana is not needed:
this proves the queries and shows the layout, colours and units of the same JSON that Grafana loads.
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
from picture.dashboard import Dashboard, Panel, load
from picture.paint import PAINTERS, Box, Canvas, no_data, time_form
from picture.prometheus import Prometheus, QueryError, Series, Window

_DASHBOARD = Path(__file__).parent / "dashboards" / "run.json"
_WIDTH, _ROW, _HEADER, _GAP = 1600, 33, 58, 8  # pixels
_MAY_BE_EMPTY = ("Stage", "Validation loss")  # panels of what a spec need not ask for
_DPI = 100


def main() -> int:
    arguments = _arguments()
    window = Window(arguments.run, arguments.start, arguments.end)
    try:
        prometheus = Prometheus(arguments.prometheus, window)
        figure, faults = draw(load(arguments.dashboard), prometheus, window)
    except QueryError as error:
        print(f"draw: {error}", file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=_DPI, facecolor=theme.PAGE)
    for fault in faults:
        print(f"draw: {fault}", file=sys.stderr)
    print(arguments.out)
    return 1 if faults else 0


def draw(dashboard: Dashboard, prometheus: Prometheus, window: Window) -> tuple[Figure, list[str]]:
    """The picture, and a line for each panel that has an error or no data."""
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
        data, fault = _data(prometheus, panel)
        if fault:
            faults.append(f"panel {panel.title!r}: {fault}")
        if any(data):
            PAINTERS[panel.type](canvas, panel, box, [target for target in data if target])
        else:
            no_data(canvas, panel, box, panel.field_config.defaults.no_value)
    return figure, faults


def _data(prometheus: Prometheus, panel: Panel) -> tuple[list[list[Series]], str]:
    """The series of each target, and what is wrong with them."""
    if panel.type not in PAINTERS:
        return [], f"type {panel.type!r} is not drawn yet"
    try:
        data = prometheus.panel(panel)
    except QueryError as error:
        return [], str(error)
    empty = [t.legend_format for t, series in zip(panel.targets, data, strict=True) if not series]
    fault = empty and panel.title not in _MAY_BE_EMPTY
    return data, f"no data for {', '.join(empty)}" if fault else ""


def _header(canvas: Canvas, dashboard: Dashboard, height: int) -> None:
    middle = height - _HEADER / 2 - 2
    title = canvas.text(16, middle, dashboard.title, size=17, weight="bold", va="center", color="#ffffff")
    canvas.text(title + 14, middle, canvas.window.run, size=17, va="center", color=theme.color("blue"))
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--prometheus", required=True, help="URL, e.g. http://127.0.0.1:19090")
    parser.add_argument("--run", required=True, help="name of the run, e.g. tiny-k3f9ab")
    parser.add_argument("--start", type=float, help="seconds since the epoch; default: an hour before the end")
    parser.add_argument("--end", type=float, help="seconds since the epoch; default: now")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    parser.add_argument("--dashboard", type=Path, default=_DASHBOARD, help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.end = time.time() if arguments.end is None else arguments.end
    arguments.start = arguments.end - 3600 if arguments.start is None else arguments.start
    if arguments.start >= arguments.end:
        parser.error("--start must be before --end")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
