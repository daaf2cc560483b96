"""The kinds of panel that the dashboards are made of, each with the house's looks.

A panel must have a title, a description that says what it shows and what its absence means, a unit, and a size. This
module owns how they look, not what they ask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common as common_build
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import prometheus as prometheus_model

from boards import looks

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
# As many points as a wide screen shows; a month is then a point an hour.
LINE_POINTS = 700
STATE_POINTS = 240
STATES_PER_PAGE = 20
Panel = TypeVar("Panel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)
REFS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One query, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every panel has. `width` is in 24ths of the screen, `height` in rows of 30 pixels."""

    title: str
    text: str
    width: int
    height: int
    links: tuple[tuple[str, str], ...] = ()
    """Titles and addresses of links in the panel's corner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How a column of a table is called and shown. Without a name it is hidden."""

    field: str
    name: str = ""
    unit: str = ""
    width: int = 0
    decimals: int | None = None
    mapping: dashboard.ValueMap | None = None
    steps: looks.Steps | None = None
    gauge: bool = False
    color: bool = False
    wraps: bool = False
    link: tuple[str, str] | None = None


def number(
    frame: Frame,
    ask: Ask,
    *,
    unit: str,
    steps: looks.Steps | None = None,
    mapping: dashboard.ValueMap | None = None,
    says: str = "no data",
    shows: common.BigValueTextMode = common.BigValueTextMode.VALUE,
    decimals: int | None = None,
    link: tuple[str, str] | None = None,
) -> stat.Panel:
    """Return one large number or word, as it is at the end of the chosen time; `says` stands where there is none."""
    panel = stat.Panel().unit(unit).no_value(says).thresholds(steps or looks.plain())
    panel = panel.with_target(_query(ask, "A").instant())
    panel = panel.reduce_options(common_build.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel = panel.color_mode(common.BigValueColorMode.BACKGROUND).graph_mode(common.BigValueGraphMode.NONE)
    panel = panel.text_mode(shows).justify_mode(common.BigValueJustifyMode.CENTER).color_scheme(_by_thresholds())
    if mapping is not None:
        panel = panel.mappings([mapping])
    if decimals is not None:
        panel = panel.decimals(decimals)
    if link is not None:
        panel = panel.data_links([_link(*link)])
    return _framed(panel, frame)


def lines(
    frame: Frame,
    *asks: Ask,
    unit: str,
    stacked: bool = False,
    steps: looks.Steps | None = None,
    dashed: str | None = None,
    least: float | None = 0,
    most: float | None = None,
    decimals: int | None = None,
    calcs: Sequence[str] = ("lastNotNull", "max"),
) -> timeseries.Panel:
    """Return lines over time, or areas on top of each other; `dashed` names the series that is a limit."""
    panel = timeseries.Panel().unit(unit).max_data_points(LINE_POINTS).line_width(1 if stacked else 2)
    for ref, ask in zip(REFS, asks, strict=False):
        panel = panel.with_target(_query(ask, ref).range())
    panel = panel.fill_opacity(60 if stacked else 8).show_points(common.VisibilityMode.NEVER).span_nulls(False)
    panel = panel.color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    mode = common.StackingMode.NORMAL if stacked else common.StackingMode.NONE
    panel = panel.stacking(common_build.StackingConfig().mode(mode).group("A"))
    legend = common_build.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs(list(calcs)))
    order = common.SortOrder.DESCENDING
    panel = panel.tooltip(common_build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(order))
    panel = panel.thresholds(steps or looks.plain())
    if steps is not None:
        style = common.GraphThresholdsStyleMode.DASHED
        panel = panel.thresholds_style(common_build.GraphThresholdsStyleConfig().mode(style))
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if decimals is not None:
        panel = panel.decimals(decimals)
    if dashed is not None:
        panel = panel.override_by_name(dashed, _limit_line())
    return _framed(panel, frame)


def states(
    frame: Frame, *asks: Ask, mapping: dashboard.ValueMap, unit: str = "none", row_height: float = 0.8
) -> statetimeline.Panel:
    """Return bars over time that say in words and colours what was so."""
    panel = statetimeline.Panel().unit(unit).max_data_points(STATE_POINTS).mappings([mapping])
    for ref, ask in zip(REFS, asks, strict=False):
        panel = panel.with_target(_query(ask, ref).range())
    panel = panel.merge_values(True).show_value(common.VisibilityMode.AUTO).row_height(row_height)
    panel = panel.color_scheme(_by_thresholds())
    panel = panel.per_page(STATES_PER_PAGE).thresholds(looks.plain(looks.UNKNOWN)).no_value("nothing in this time")
    legend = common_build.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([]))
    return _framed(panel, frame)


def rows(
    frame: Frame,
    *asks: Ask,
    columns: Sequence[Column],
    worst_first: Sequence[tuple[str, bool]] = (),
    says: str = "nothing",
    unit: str = "short",
) -> table.Panel:
    """Return a table of what is so at the end of the chosen time; answers are merged by their labels.

    `worst_first` names the columns it is sorted by, and whether downwards.
    """
    panel = table.Panel().unit(unit).no_value(says).thresholds(looks.plain()).cell_height(common.TableCellHeight.MD)
    for ref, ask in zip(REFS, asks, strict=False):
        panel = panel.with_target(_query(ask, ref).instant().format(prometheus_model.PromQueryFormat.TABLE))
    panel = panel.color_scheme(_by_thresholds())
    panel = panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(_organized(columns))
    if worst_first:
        panel = panel.sort_by(
            [common_build.TableSortByFieldState().display_name(name).desc(down) for name, down in worst_first]
        )
    for column in columns:
        properties = _properties(column)
        if column.name and properties:
            panel = panel.override_by_name(column.name, properties)
    return _framed(panel, frame)


def _framed(panel: Panel, frame: Frame) -> Panel:
    panel = panel.title(frame.title).description(frame.text).span(frame.width).height(frame.height)
    panel = panel.datasource(SOURCE)
    return panel.links([_link(title, url) for title, url in frame.links]) if frame.links else panel


def _query(ask: Ask, ref: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(ask.expr).ref_id(ref).datasource(SOURCE)
    query = query.editor_mode(prometheus_model.QueryEditorMode.CODE)
    return query.legend_format(ask.legend) if ask.legend else query


def _link(title: str, url: str) -> build.DashboardLink:
    link = build.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url)
    return link.target_blank(not url.startswith("/d/"))


def _data_link(title: str, url: str) -> Mapping[str, Any]:
    return {"title": title, "url": url, "targetBlank": not url.startswith("/d/")}


def _by_thresholds() -> build.FieldColor:
    return build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def _limit_line() -> list[dashboard.DynamicConfigValue]:
    values: Mapping[str, Any] = {
        "custom.stacking": {"mode": "none", "group": "B"},
        "custom.fillOpacity": 0,
        "custom.lineWidth": 2,
        "custom.lineStyle": {"fill": "dash", "dash": [10, 8]},
        "color": {"mode": "fixed", "fixedColor": looks.CRITICAL},
    }
    return [dashboard.DynamicConfigValue(id_val=name, value=value) for name, value in values.items()]


def _organized(columns: Sequence[Column]) -> dashboard.DataTransformerConfig:
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True} | {one.field: True for one in columns if not one.name},
            "indexByName": {one.field: index for index, one in enumerate(columns) if one.name},
            "renameByName": {one.field: one.name for one in columns if one.name},
        },
    )


def _properties(column: Column) -> list[dashboard.DynamicConfigValue]:
    cell: Any = None
    if column.gauge:
        cell = common.TableBarGaugeCellOptions(mode=common.BarGaugeDisplayMode.LCD)
    elif column.color:
        cell = common.TableColoredBackgroundCellOptions(wrap_text=column.wraps or None)
    elif column.wraps:
        cell = common.TableAutoCellOptions(wrap_text=True)
    values = {
        "unit": column.unit or None,
        "decimals": column.decimals,
        "custom.width": column.width or None,
        "mappings": [column.mapping] if column.mapping else None,
        "thresholds": column.steps.build() if column.steps else None,
        "custom.cellOptions": cell,
        "links": [_data_link(*column.link)] if column.link else None,
        **({"min": 0, "max": 1} if column.gauge else {}),
    }
    return [dashboard.DynamicConfigValue(id_val=name, value=one) for name, one in values.items() if one is not None]
