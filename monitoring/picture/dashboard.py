"""What of a Grafana dashboard (classic JSON) the picture needs. Keys that it does not draw are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Grid(_Part):
    """Place of a panel: 24 columns wide, rows from the top."""

    x: int
    y: int
    w: int
    h: int


class Target(_Part):
    expr: str
    legend_format: str = ""
    instant: bool = False
    format: str = ""
    ref_id: str


class ThresholdStep(_Part):
    color: str
    value: float | None = None  # None: from minus infinity


class Thresholds(_Part):
    steps: list[ThresholdStep]


class Color(_Part):
    mode: str
    fixed_color: str = ""


class Stacking(_Part):
    mode: str = "none"


class Style(_Part):
    mode: str = "off"


class Custom(_Part):
    draw_style: str = "line"
    show: str = "lines"  # of an xychart
    fill_opacity: float = 0
    line_width: float = 1
    line_interpolation: str = "linear"
    span_nulls: bool = False
    axis_soft_min: float | None = None
    stacking: Stacking = Stacking()
    thresholds_style: Style = Style()
    width: float | None = None
    cell_options: dict[str, str] = Field(default_factory=dict)


class Mapping(_Part):
    type: str
    options: dict[str, Any] = Field(default_factory=dict)


class Defaults(_Part):
    unit: str
    no_value: str = ""
    display_name: str = ""
    decimals: int | None = None
    min: float | None = None
    max: float | None = None
    color: Color
    thresholds: Thresholds
    mappings: list[Mapping] = Field(default_factory=list)
    links: list[dict[str, Any]] = Field(default_factory=list)
    custom: Custom = Custom()

    def threshold_color(self, value: float) -> str:
        reached = [s.color for s in self.thresholds.steps if s.value is None or value >= s.value]
        return reached[-1]

    def mapped(self, value: float | str) -> tuple[str, str] | None:
        """Text and colour that a value mapping gives to this value."""
        for mapping in self.mappings:
            key = value if isinstance(value, str) else f"{value:g}"
            found = mapping.options.get(key) if mapping.type == "value" else None
            if found:
                return str(found["text"]), str(found["color"])
        return None


class Property(_Part):
    id: str
    value: Any = None


class Matcher(_Part):
    id: str
    options: Any = None


class Override(_Part):
    matcher: Matcher
    properties: list[Property]


class FieldConfig(_Part):
    defaults: Defaults
    overrides: list[Override] = Field(default_factory=list)


class Legend(_Part):
    display_mode: str = "list"
    show_legend: bool = False


class Sort(_Part):
    display_name: str
    desc: bool = False


class Transformation(_Part):
    id: str
    options: dict[str, Any]


class Options(_Part):
    legend: Legend = Legend()
    sort_by: list[Sort] = Field(default_factory=list)
    stacking: str = "none"
    color_mode: str = "value"
    text_mode: str = "value"


class Panel(_Part):
    id: int
    type: str
    title: str
    grid_pos: Grid
    field_config: FieldConfig
    options: Options
    targets: list[Target]
    interval: str = ""
    max_data_points: int | None = None
    transformations: list[Transformation] = Field(default_factory=list)

    def field(self, name: str) -> Defaults:
        """The configuration of the field of this name: the defaults, and what is overridden for it."""
        found = self.field_config.defaults.model_dump(by_alias=True)
        for override in self.field_config.overrides:
            if override.matcher.id == "byName" and override.matcher.options == name:
                for item in override.properties:
                    *path, key = item.id.split(".")
                    (found[path[0]] if path else found)[key] = item.value
        return Defaults.model_validate(found)

    def overridden(self, series: str, key: str) -> Any:
        """The value of an override `byName` for this series, None when there is none."""
        for override in self.field_config.overrides:
            if override.matcher.id == "byName" and override.matcher.options == series:
                for item in override.properties:
                    if item.id == key:
                        return item.value
        return None


class Annotation(_Part):
    name: str
    enable: bool
    expr: str
    icon_color: str
    title_format: str = ""
    use_value_for_time: bool = False  # else the marks are where the value is above 0


class Annotations(_Part):
    queries: list[Annotation] = Field(alias="list")


class Variable(_Part):
    name: str
    type: str
    include_all: bool = False


class Templating(_Part):
    variables: list[Variable] = Field(default_factory=list, alias="list")


class Dashboard(_Part):
    title: str
    panels: list[Panel]
    annotations: Annotations
    templating: Templating


def load(file: Path) -> Dashboard:
    """Raises ValueError (pydantic) when the file is no such dashboard."""
    return Dashboard.model_validate_json(file.read_text(encoding="utf-8"))
