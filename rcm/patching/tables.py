"""Tables of components, the strongest first, with what the strongest that are not critical lack."""

from collections.abc import Iterator, Sequence

from rcm.patching.effects import LOST, WAYS, Effects, ShareEstimates
from rcm.record.results import Column, Table

TOP = 10  # components that pages show at least, and heads of which the stability of the ranking is told
COLUMNS = ("share", *(f"{way}{figure}" for way in WAYS for figure in ("", "_low", "_high", "_p")))
LAST = ("verdict", "listed", "critical")
SHOWN = (
    Column("share", "share", "share", "of the gap, mean of the two ways"),
    *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
)
VERDICT = Column("verdict", "critical?", "", "or what it lacks")
BY_SHARE = "By share, for refusing or against it; every one down to the last that is critical."


def heads_table(effects: Effects, direct: ShareEstimates, min_share: float) -> Table:
    """One row for each head, the strongest first: what it does when exchanged, and what it writes."""
    place = {cell: number for number, cell in enumerate(effects.of_kind("head"))}
    columns = ("layer", "head", *COLUMNS, "direct", "direct_low", "direct_high", *LAST)
    rows = [
        (
            effects.components[cell].layer,
            effects.components[cell].number,
            *_figures(effects, cell),
            *(float(column[place[cell]]) for column in (direct.share, direct.low, direct.high)),
            *last,
        )
        for cell, last in _listed(effects, list(place), min_share)
    ]
    shown = [
        Column("layer", "layer", "index"),
        Column("head", "head", "index"),
        *SHOWN,
        Column(
            "direct", "writes", "share", "along the direction, of its length; none after the layer where it is read"
        ),
        VERDICT,
    ]
    return Table("patching/heads", columns, rows, "strongest heads", BY_SHARE, shown, only="listed")


def layers_table(effects: Effects, min_share: float) -> Table:
    """One row for each output of attention and MLP, the strongest first, and for the residual stream at each layer."""
    outputs = _listed(effects, [*effects.of_kind("attention"), *effects.of_kind("mlp")], min_share)
    stream = _listed(effects, effects.of_kind("residual"), min_share, shown=False)  # it has a curve of its own
    rows = [
        (effects.components[cell].layer, effects.components[cell].kind, *_figures(effects, cell), *last)
        for cell, last in (*outputs, *stream)
    ]
    columns = ("layer", "component", *COLUMNS, *LAST)
    shown = [Column("layer", "layer", "index"), Column("component"), *SHOWN, VERDICT]
    return Table("patching/layers", columns, rows, "strongest layers", BY_SHARE, shown, only="listed")


def _figures(effects: Effects, cell: int) -> list[float]:
    estimates = (effects.necessity, effects.sufficiency)
    figures = (figure for one in estimates for figure in (one.share, one.low, one.high, one.p))
    return [float(effects.share[cell]), *(float(figure[cell]) for figure in figures)]


def _listed(
    effects: Effects, cells: Sequence[int], min_share: float, shown: bool = True
) -> Iterator[tuple[int, tuple[str, bool, bool]]]:
    """Cells by share, each with its verdict, whether pages show it, and whether it is critical.

    Pages show all down to the last critical one, so that none as strong as those is left out without a word.
    """
    order, critical = effects.strongest_first(cells), effects.critical(min_share)
    last = max([TOP, *(number for number, cell in enumerate(order, start=1) if critical[cell])])
    for number, cell in enumerate(order):
        yield cell, (effects.lacking(cell, min_share) or "critical", shown and number < last, bool(critical[cell]))
