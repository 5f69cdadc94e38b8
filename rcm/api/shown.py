"""One result of a run, as people read it: a line in a terminal, a table or a picture in a notebook."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rcm.api.pictures import standalone
from rcm.record.results import Curve, Diagram, Heatmap, Outcome, Result, Scalar, Scatter, Table, Transcripts
from rcm.record.units import TIED, in_unit, known
from rcm.report import cells
from rcm.report.svg import element

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

DRAWN = (Heatmap, Curve, Scatter, Diagram)
MOST = 24  # rows of a table that a notebook shows


class Shown:
    """The result itself lies under `result`; its parts (`value`, `interval`, `null`, `because`, ...) are at hand here,
    too. `why`: why the method has no figures, where it stopped before them."""

    def __init__(self, result: Any, why: str = "") -> None:
        self.result, self.why = result, why

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "result":
            raise AttributeError(name)
        try:
            return getattr(self.result, name)
        except AttributeError:
            kind, parts = type(self.result).__name__, ", ".join(vars(self.result))
            raise AttributeError(f"The {kind} {self.result.name} has no {name!r}; it has {parts}") from None

    def __repr__(self) -> str:
        return f"{self.label or self.result.name} ({type(self.result).__name__.lower()})"


class Figure(Shown):
    """A figure with what stands behind it: its 95 % interval, its null, how many it is of."""

    def __float__(self) -> float:
        return float(self.result.value)

    def __repr__(self) -> str:
        return f"{self.result.label or self.result.name}: {value_of(self.result)}{self._behind}"

    def _repr_html_(self) -> str:
        return table([row_of(self)])

    @property
    def _behind(self) -> str:
        if not known(float(self)):
            return f" ({reason})" if (reason := self.why or self.result.absent) else ""
        said = ", ".join(filter(None, (cells.behind(self.result), self.result.caveat)))
        return f" ({said})".replace(TIED, " ") if said else ""


class Conclusion(Shown):
    """What was concluded, in a word, `value`, and why, `because`."""

    def __repr__(self) -> str:
        return f"{self.result.label}: {self.result.value} ({self.result.because})"

    def _repr_html_(self) -> str:
        return str(element("p", element("b", self.result.value.replace("_", " ")), " ", self.result.because))


class Picture(Shown):
    """A map, a curve, a cloud of points or a circuit."""

    def _repr_svg_(self) -> str:
        return standalone(self.result)

    def figure(self) -> "MatplotlibFigure":
        """The same for print: `figure().savefig("x.pdf")`."""
        from rcm.report.matplotlib_figures import figure  # takes a second to import

        return figure(self.result)


class Rows(Shown):
    """A table, or replies: `rows` has each row by the names of its columns."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        if isinstance(self.result, Table):
            return [dict(zip(self.result.columns, row, strict=True)) for row in self.result.rows]
        return [dict(row) for row in self.result.rows]

    def __len__(self) -> int:
        return len(self.result.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"{self.result.label or self.result.name}: {len(self)} rows"

    def _repr_html_(self) -> str:
        rows = self.rows
        if isinstance(self.result, Table):
            columns = cells_of(self.result)
            rows = [row for row in rows if not self.result.only or row[self.result.only]]
            body = [{one.label or one.name: cell_of(one, row) for one in columns} for row in rows[:MOST]]
        else:
            body = [{key: str(value) for key, value in row.items()} for row in rows[:MOST]]
        left = f" The first {MOST} of {len(rows)} rows; all of them: .rows." if len(rows) > MOST else ""
        return table(body, f"{self.result.label}. {self.result.hint}{left}")


def shown(result: Result, why: str = "") -> Shown:
    """The result with what shows it."""
    match result:
        case Scalar():
            return Figure(result, why)
        case Outcome():
            return Conclusion(result, why)
        case Heatmap() | Curve() | Scatter() | Diagram():
            return Picture(result, why)
        case Table() | Transcripts():
            return Rows(result, why)
        case _:
            return Shown(result, why)


def value_of(scalar: Scalar) -> str:
    """In its unit, or that there is none."""
    value = float(scalar.value)
    return in_unit(scalar.unit)(value).replace(TIED, " ") if known(value) else "not measured"


def row_of(figure: Figure) -> Mapping[str, str]:
    """A figure as a row of a table."""
    scalar, shown_in = figure.result, in_unit(figure.result.unit)
    measured = known(float(scalar.value))
    ends = scalar.interval if scalar.interval and all(map(known, scalar.interval)) else None
    name = ", ".join(filter(None, (scalar.row, scalar.label or scalar.name)))
    return {
        "figure": f"{name} ({scalar.caveat})" if scalar.caveat else name,
        "value": value_of(scalar),
        "95 % interval": f"{shown_in(ends[0])} to {shown_in(ends[1])}" if ends else "",
        "null": cells.null_of(scalar.null, shown_in).removeprefix(f"null{TIED}") if measured else "",
        "n": f"{scalar.n} {scalar.counts}" if scalar.n is not None else "",
        "how to read it": scalar.hint if measured else figure.why or scalar.absent or scalar.hint,
    }


def cells_of(stored: Table) -> list[Any]:
    """The columns that the table says to show."""
    from rcm.report.tables import shown_columns

    return shown_columns(stored)


def cell_of(column: Any, row: Mapping[str, Any]) -> str:
    cell = cells.of_column(column, row)
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def table(rows: list[Any], caption: str = "") -> str:
    """Rows by their columns, as HTML; every text in it is escaped."""
    if not rows:
        return "<p>No rows.</p>"
    left, names = "text-align: left", list(rows[0])
    head = element("tr", *(element("th", name, style=left) for name in names))
    body = [element("tr", *(element("td", row[name], style=left) for name in names)) for row in rows]
    about = [element("caption", caption, style=left)] if caption.strip(". ") else []
    return str(element("table", *about, element("thead", head), element("tbody", *body)))
