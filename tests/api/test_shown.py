"""What a notebook shows: figures with their nulls, tables, pictures that need no page, and nothing taken for markup."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import rcm
from rcm.api.findings import Finding
from rcm.api.models import Model
from rcm.api.pictures import NAMESPACE, standalone
from rcm.api.shown import Picture, shown
from rcm.record.results import Column, Curve, Diagram, Edge, Heatmap, Line, Node, Null, Outcome, Scalar, Scatter, Table
from tests.planted import planted_judge, planted_model, planted_prompts

HOSTILE = "</style><script>alert(1)</script>"
PICTURES = [
    Heatmap(
        "x/map", np.array([[0.5, math.nan], [1.0, -1.0]]), ["a", HOSTILE], ["0", "1"], "row", "layer", label=HOSTILE
    ),
    Curve("x/curve", [0.0, 1.0, 2.0], [Line(HOSTILE, [0.0, 0.5, 1.0], [0.0] * 3, [1.0] * 3)], "x", "y", hint=HOSTILE),
    Scatter("x/cloud", [0.1, 1.0], [1.0, 2.0], [0.0, 1.0], ["a", "b"], "x", "y", "z", marked=[0], label="a cloud"),
    Diagram(
        "x/circuit",
        [Node("0.1", "head", 0, 0.3), Node("MLP 1", "mlp", 1, 0.2), Node("out", "output", 2, math.nan)],
        [Edge("0.1", "MLP 1", 0.4), Edge("MLP 1", "out", -0.2)],
        2,
        "share",
        "weight",
        label="a circuit",
    ),
]


@pytest.fixture(scope="module")
def direction() -> Finding:
    model = Model(planted_model(layer=3), "chat")
    return rcm.direction(model, dataset=planted_prompts(), judge=planted_judge(), null_draws=20, null_directions=2)


@pytest.mark.parametrize("result", PICTURES, ids=lambda one: one.name)
def test_a_picture_is_one_svg_by_itself(result) -> None:
    """Its parts lie inside of it, one below the other, and its styles touch nothing else."""
    root = ElementTree.fromstring(standalone(result))
    assert root.tag == f"{{{NAMESPACE}}}svg"
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    below = 0.0
    for part in root.findall(f"{{{NAMESPACE}}}svg"):
        assert float(part.get("y", -1)) >= below
        below = float(part.get("y", 0)) + float(part.get("height", 0))
        assert float(part.get("x", 0)) + float(part.get("width", 0)) <= width
    assert 0 < below <= height
    (style,) = root.findall(f"{{{NAMESPACE}}}style")
    selectors = [one for rule in re.findall(r"([^{}]+)\{", style.text or "") for one in rule.split(",")]
    assert len(selectors) > 10
    assert all(one.strip().startswith("svg.rcm") for one in selectors)
    assert set(re.findall(r"var\((--[\w-]+)\)", style.text or "")) <= set(re.findall(r"(--[\w-]+):", style.text or ""))
    assert not list(root.iter(f"{{{NAMESPACE}}}script"))
    assert "<script" not in standalone(result)


@pytest.mark.parametrize("result", PICTURES, ids=lambda one: one.name)
def test_a_picture_is_a_matplotlib_figure_too(result) -> None:
    picture = shown(result)
    assert isinstance(picture, Picture)
    assert picture.figure().axes


def test_a_figure_stands_with_interval_null_and_n() -> None:
    figure = shown(
        Scalar("x/rate", 0.5, (0.25, 0.75), 12, Null(0.125, "shuffled labels", 19, p=0.05), unit="share", label="rate")
    )
    for part in ("rate", "50.0 %", "25.0 %", "75.0 %", "12.5 %", "19 shuffled labels", "12 prompts"):
        assert part in repr(figure)
        assert part in figure._repr_html_().replace("\N{NO-BREAK SPACE}", " ")
    assert float(figure) == figure.value == 0.5
    with pytest.raises(AttributeError, match="The Scalar x/rate has no 'valu'; it has name, value, interval"):
        _ = figure.valu


def test_what_was_not_measured_says_why() -> None:
    assert repr(shown(Scalar("x/rate", math.nan, absent="Nobody was asked."), "")) == (
        "x/rate: not measured (Nobody was asked.)"
    )
    assert "The model refuses nothing." in repr(shown(Scalar("x/rate", math.nan), "The model refuses nothing."))


def test_nothing_is_taken_for_markup() -> None:
    table = Table("x/t", ["word"], [(HOSTILE,)], HOSTILE, shown=[Column("word", HOSTILE)])
    for one in (shown(table), shown(Outcome("x/outcome", HOSTILE, HOSTILE)), shown(Scalar("x/s", 1.0, label=HOSTILE))):
        assert "<script" not in one._repr_html_()


def test_a_finding_in_a_line_and_in_a_table(direction: Finding) -> None:
    assert "\n" not in repr(direction)
    assert repr(direction).startswith("<direction in planted: selected, layer 3, position -1")
    html = direction._repr_html_()
    for name, figure in direction.figures.items():
        assert figure.result is direction.results[f"direction/{name}"]
        assert (figure.label or figure.name) in html
    assert direction.outcome.because in html.replace("&#39;", "'")
    assert {"separation", "heatmap", "force", "candidates"} <= set(dir(direction))


def test_names_that_it_has_not_are_told(direction: Finding, sentence) -> None:
    with pytest.raises(AttributeError, match="direction has no 'seperation'; did you mean 'separation'"):
        _ = direction.seperation
    with pytest.raises(KeyError, match="did you mean 'separation'"):
        _ = direction["seperation"]
    assert direction["direction/separation"].result is direction["separation"].result
    assert "it has map_" in sentence(lambda: direction.heatmap("nothing"))
    assert direction.heatmap().result.name == "direction/map_separation"
    assert {one.result.name for one in direction.pictures.values()} >= {"direction/by_layer", "direction/map_kl"}


def test_tables_have_their_rows_by_name(direction: Finding) -> None:
    rows = direction.candidates.rows
    assert len(rows) == len(direction.candidates) == len(direction.results["direction/candidates"].rows)
    assert [row["layer"] for row in rows if row["position"] == -1] == list(range(6))
