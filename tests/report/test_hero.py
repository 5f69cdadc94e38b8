"""The picture that stands first: every value at its place, what is missing with its reason, as page and as files."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from rcm.comparison import compare
from rcm.comparison.names import CIRCUIT_CARRIED, CIRCUIT_DIAGRAM
from rcm.comparison.overview import Overview, overview
from rcm.record.results import Diagram, Node, Null, Outcome, Scalar
from rcm.record.stored import stored_runs
from rcm.report import write
from rcm.report.hero import Scales, blocks, head_of, height, sentences, standalone
from rcm.report.hero_in_print import files
from tests.comparison.made import a_run, refusing
from tests.report.samples import HOSTILE, fill

NODES = [Node("3.0", "head", 3, 0.25), Node("3.7", "head", 3, -0.125), Node("MLP 5", "mlp", 5, 0.5)]
CIRCUIT = [
    Outcome("circuit/outcome", "circuit", "Three do it."),
    Diagram(CIRCUIT_DIAGRAM, NODES, [], 8, "share lacking without it", "effect"),
    Scalar(CIRCUIT_CARRIED, 0.8, (0.7, 0.9), 12, Null(0.3, "random circuits"), unit="share"),
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    """Two models: one with everything but a circuit, and one that refuses too little for anything else."""
    comparison = compare(stored_runs(fill(tmp_path_factory.mktemp("runs"))))
    return overview(comparison.families[0], comparison.tunings)


def titles(markup: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(markup).iter() if one.tag.endswith("title")]


def test_every_layer_tells_its_values_and_what_is_missing_its_reason(drawn: Overview) -> None:
    untuned, tuned = blocks(drawn)
    curve = drawn.models[1].decided
    assert curve is not None
    for line in curve.lines:
        for layer, value in zip(curve.x, line.y, strict=True):
            assert f"{line.label}, layer {layer:g}: {value:.3g}" in titles(tuned)
    why = drawn.models[0].why_without("patching/residual")
    assert why
    shown = " ".join(re.sub(r"<[^>]+>", " ", untuned).split())
    assert "Not measured:" in shown
    assert all(word in shown for word in why.split()[:4])


def test_higher_layers_lie_higher_and_greater_values_farther_right(drawn: Overview) -> None:
    marks = [
        (title, re.search(r'c[xy]="([\d.]+)".*?cy="([\d.]+)"', circle))
        for circle, title in re.findall(r"(<circle[^>]*>)<title>(necessity, layer [^<]+)", blocks(drawn)[1])
    ]
    assert len(marks) == drawn.layers
    places = [(float(found[1]), float(found[2])) for _, found in marks if found]
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    values = [float(title.rpartition(" ")[2]) for title, _ in marks]
    order = sorted(range(len(values)), key=values.__getitem__)
    across = [places[i][0] for i in order]
    assert across == sorted(across)


def test_models_share_their_scales_and_their_height(drawn: Overview) -> None:
    heights = {re.search(r'height="(\d+)"', one)[1] for one in blocks(drawn)}  # type: ignore[index]
    assert heights == {str(-int(-height(drawn) // 1))}
    assert Scales.of(drawn).layers == 30


def test_nodes_of_a_circuit_lie_at_their_layer_and_head(tmp_path: Path) -> None:
    a_run(tmp_path, "m", "chat", [refusing(0.9), *CIRCUIT])
    family = overview(compare(stored_runs(tmp_path)).families[0])
    cells = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="cell"><title>([^:<]+)', blocks(family)[0])
    at = {name: (float(x), float(y)) for x, y, name in cells}
    assert set(at) == {"3.0", "3.7", "MLP 5"}
    assert at["3.0"][1] == at["3.7"][1] > at["MLP 5"][1]
    assert at["3.0"][0] < at["3.7"][0] < at["MLP 5"][0]
    shown = " ".join(re.sub(r"<[^>]+>", " ", blocks(family)[0]).split())
    assert "3 nodes carry" in shown
    assert "80 % [70, 90]" in shown.replace("\u00a0", " ")
    assert "null: 30 %" in shown.replace("\u00a0", " ")


def test_only_heads_have_the_number_of_a_head() -> None:
    assert head_of(Node("12.31", "head", 12, 0.0)) == 31
    assert head_of(Node("MLP 5", "mlp", 5, 0.0)) is None
    assert head_of(Node("odd", "head", 5, 0.0)) is None


def test_a_part_that_no_model_has_takes_no_room(tmp_path: Path) -> None:
    a_run(tmp_path, "m", "chat", [refusing(0.9)])
    family = overview(compare(stored_runs(tmp_path)).families[0])
    assert not family.shown
    assert height(family) < 150
    assert "Not measured" not in blocks(family)[0]
    assert set(files(family)) == {"svg", "pdf", "png"}


def test_what_was_left_out_is_said(drawn: Overview) -> None:
    assert not any("more run" in one for one in sentences(drawn))
    assert sentences(replace(drawn, left_out=2))[-1] == "2 more runs of the family: see below."


def test_as_files_they_can_be_read_and_fetch_nothing(drawn: Overview) -> None:
    found = files(drawn)
    root = ElementTree.fromstring(found["svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"(href|src|url\()", standalone(drawn))
    assert found["pdf"].startswith(b"%PDF")
    picture = imread(BytesIO(found["png"]))
    assert picture.shape[1] > 1200
    assert picture[..., :3].std() > 0.02


def test_the_report_writes_them_for_each_family(tmp_path: Path) -> None:
    fill(tmp_path / "runs")
    page, _ = write(tmp_path / "runs", tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    names = sorted(one.name for one in (tmp_path / "page" / "slides").iterdir())
    assert {name.rpartition(".")[2] for name in names} == {"svg", "pdf", "png"}
    assert all(f'href="slides/{name}"' in text for name in names)
    assert text.index('id="overview"') < text.index('id="short"')


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    results = [refusing(0.9), Outcome("behaviour/outcome", "refusal", "")]
    a_run(tmp_path, HOSTILE, "chat", results, id="hostile")
    family = overview(compare(stored_runs(tmp_path)).families[0])
    made = standalone(family)
    assert "<script" not in made
    ElementTree.fromstring(made)
