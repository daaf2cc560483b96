"""The frame that all dashboards share: variables, links between them, what is drawn across every panel, and the grid.

Owns the uids, which the alerts' `dashboard_url` may name and which therefore never change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards.panels import SOURCE

TAG = "batsignal"
STATUS_PAGE = "http://localhost:9988"
GRID_COLUMNS = 24
SOURCE_CODE = "Built by grafana/boards of BatSignal; change it there, or save a copy of it under another uid."


class EventMark(model.AnnotationQuery):
    """Marks moments that are the values of a series: fields of Grafana's Prometheus source, which the SDK lacks."""

    def __init__(self, *, name: str, expr: str, color: str, title: str, text: str, tags: str) -> None:
        super().__init__(name=name, datasource=SOURCE, enable=True, icon_color=color, expr=expr, built_in=None)
        self._extra = {"titleFormat": title, "textFormat": text, "tagKeys": tags, "useValueForTime": True}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._extra


@dataclass(frozen=True, slots=True)
class _Made(Builder[model.AnnotationQuery]):
    """What is made already, where the SDK wants something to make."""

    made: model.AnnotationQuery

    def build(self) -> model.AnnotationQuery:
        return self.made


DEPLOYS = EventMark(
    name="Deploys",
    expr="max by (service, version) (batsignal_deploy_timestamp_seconds) * 1000",
    color="blue",
    title="{{service}}@{{version}} deployed",
    text="The first session of that version, or what the pipeline told.",
    tags="service,version",
)
ONSETS = EventMark(
    name="Onsets",
    expr=(
        "max by (server, kind, severity, application)"
        ' (batsignal_signal_since_timestamp_seconds{server=~"$server"}) * 1000'
    ),
    color="red",
    title="{{kind}} {{application}} on {{server}}",
    text="Since when it goes on, as BatSignal dates it.",
    tags="kind,severity",
)

# Inside the class `build` is its method.
Link = build.DashboardLink


@dataclass(slots=True, kw_only=True)
class Board:
    """A dashboard to be: panels are added row by row, from left to right."""

    uid: str
    title: str
    text: str
    since: str = "now-30m"
    marks: Sequence[EventMark] = (DEPLOYS, ONSETS)
    _panels: list[model.Panel | model.RowPanel] = field(default_factory=list)
    _y: int = 0

    def add(self, *panels: Builder[model.Panel], heading: str = "") -> None:
        """Add a line of panels, as high as its highest, under a heading if there is one.

        Raises ValueError when they are wider than the screen.
        """
        if heading:
            position = model.GridPos(x=0, y=self._y, w=GRID_COLUMNS, h=1)
            row = build.Row(heading).grid_pos(position).id(len(self._panels) + 1)
            self._panels.append(row.build())
            self._y += 1
        x, height = 0, 0
        for panel in panels:
            made = panel.build()
            size = made.grid_pos or model.GridPos()
            made.grid_pos = model.GridPos(x=x, y=self._y, w=size.w, h=size.h)
            made.id_val = len(self._panels) + 1
            self._panels.append(made)
            x, height = x + size.w, max(height, size.h)
        if x > GRID_COLUMNS:
            raise ValueError(f"{self.title}: expected at most {GRID_COLUMNS} columns in a line, got {x}")
        self._y += height

    def build(self) -> model.Dashboard:
        """Return the whole dashboard."""
        board = build.Dashboard(self.title).uid(self.uid).description(f"{self.text} {SOURCE_CODE}").tags([TAG])
        board = board.readonly().time(self.since, "now").refresh("10s").timezone("browser")
        board = board.tooltip(model.DashboardCursorSync.CROSSHAIR)
        for variable in (_source(), _server(), _status_page()):
            board = board.with_variable(variable)
        for link in self._links():
            board = board.link(link)
        for mark in self.marks:
            board = board.annotation(_Made(mark))
        made = board.build()
        made.panels = list(self._panels)
        for one in made.templating.list_val or ():
            # The SDK gives these to every variable; the schema knows them of intervals only.
            one.auto = one.auto_min = one.auto_count = None
        return made

    @staticmethod
    def _links() -> Sequence[Link]:
        boards = build.DashboardLink("BatSignal's dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
        page = build.DashboardLink("Status page").type(model.DashboardLinkType.LINK).url("${status_page}/")
        books = build.DashboardLink("Runbook: BatSignal is blind").type(model.DashboardLinkType.LINK)
        return (
            boards.as_dropdown(True).include_vars(True).keep_time(True).icon("external link"),
            page.icon("dashboard").tooltip("What is lit now, and what to do").target_blank(True),
            books.url("${status_page}/runbooks/BatSignalBlind").icon("doc").target_blank(True),
        )


def _source() -> build.DatasourceVariable:
    return build.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _server() -> build.QueryVariable:
    query: dict[str, object] = {
        "qryType": 1,
        "query": "label_values(batsignal_last_tick_timestamp_seconds, server)",
        "refId": "servers",
    }
    variable = build.QueryVariable("server").label("Server").datasource(SOURCE).query(query).multi(True)
    variable = variable.include_all(True).all_value(".+").sort(model.VariableSort.NATURAL_ASC)
    everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).current(everything)


def _status_page() -> build.TextBoxVariable:
    variable = build.TextBoxVariable("status_page").label("BatSignal at").default_value(STATUS_PAGE)
    return variable.current(model.VariableOption(selected=True, text=STATUS_PAGE, value=STATUS_PAGE))
