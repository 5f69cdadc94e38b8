"""The page says what the runs found, draws what they measured, and takes nothing that a model wrote for markup."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rcm.comparison import Comparison, compare
from rcm.comparison.changes import Change
from rcm.errors import InputError
from rcm.record.results import Column, Curve, Diagram, Edge, Line, Node, Null, Outcome, Result, Scalar, Table, Word
from rcm.record.stored import stored_runs
from rcm.report import pictures, write
from rcm.report.__main__ import main
from rcm.report.changes import sheets
from rcm.report.provenance import facts
from rcm.report.sections import conclusions, sections
from rcm.report.tables import by_method
from rcm.report.warnings import groups
from tests.comparison.made import a_run as reading_of
from tests.report.samples import (
    BIDI,
    NAN,
    a_run,
    base,
    by_second_judge,
    fail,
    fill,
    grids,
    lens,
    patched,
    store,
    tuned,
)

SEEN = "25.0 % of its test prompts were trained on"


def compared(folder: Path) -> Comparison:
    return compare(stored_runs(folder))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The page and its twin."""
    page, twin = write(runs, tmp_path_factory.mktemp("page") / "new" / "folder")
    return page.read_text(encoding="utf-8"), twin.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser makes of the page: its tags, and its text without scripts and styles."""

    VOID = ("meta", "br", "input", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def attributes(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def replies_of(text: str) -> list[list[list[str]]]:
    """The rows of each table of transcripts, as the page's script reads them."""
    return [json.loads(data) for data in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]


def words_of(text: str) -> str:
    return re.sub(r"\s+", " ", Page(text).text)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_rate_tells_how_far_the_judge_may_err(written: tuple[str, str]) -> None:
    assert re.search(r"harmful prompts refused.*?95 %: [^·]* · judge may err: 95 %: ", words_of(written[0]))


def test_every_tag_is_closed_and_nothing_is_fetched(written: tuple[str, str]) -> None:
    page = Page(written[0])
    assert page.open == []
    names = {name for name, _ in page.tags}
    assert not names & {"img", "link", "iframe", "object", "embed", "base"}
    assert names >= {"svg", "details", "table", "form"}
    assert [script.get("type") for script in page.attributes("script")].count(None) == 1
    assert {script.get("type") for script in page.attributes("script")} == {None, "application/json"}
    for _, attributes in page.tags:
        assert not any(key in ("src", "srcset", "xlink:href") or key.startswith("on") for key in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "slides/"))
    (policy,) = (meta["content"] for meta in page.attributes("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_no_markup_comes_from_a_model(written: tuple[str, str]) -> None:
    html, markdown = written
    assert "<script>alert" not in html
    said_by_models = json.dumps(replies_of(html), ensure_ascii=False)
    assert "<script>alert(1)</script></details>" in said_by_models
    assert "{{ 7 * 7 }}" in said_by_models  # printed, not computed
    assert "⟨U+001B⟩[31mred ⟨U+202E⟩reversed ⟨U+200B⟩" in said_by_models
    for data in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL):
        assert not set(data) & set("<>&'")
    for text in written:
        assert not set(text) & {BIDI, "\x1b", "\u2028", "\r", "\N{ZERO WIDTH SPACE}"}
    assert not re.search("<(?!!)", markdown)
    assert "javascript:alert" not in markdown
    assert "https://" not in markdown
    assert "out of &lt;b&gt;memory&lt;/b&gt;" in html


def test_tables_in_markdown_keep_their_columns(written: tuple[str, str]) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", written[1], flags=re.MULTILINE)
    assert len(blocks) > 8
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_models_stand_in_the_order_of_their_training(written: tuple[str, str]) -> None:
    heads = re.findall(r"\*\*(.*?)\*\* \((\w+), run", written[1])
    assert heads[:2] == [("smol", "base"), ("smol-refusal", "safety")]


def test_the_four_figures_stand_with_interval_null_n_and_verdict(written: tuple[str, str]) -> None:
    shown = words_of(written[0])
    assert "What a good analysis shows separation > 2.00 σ distance of the classes along the direction 1.41 σ" in shown
    assert "1.41 σ ✗ not met 95 %: 1.10 σ to 1.80 σ · null 0.39 σ (1000 shuffled labels, p = 0.001)" in shown
    assert f"97.9 % ✓ met {SEEN} 95 %: 92.7 % to 99.4 % · null 61.0 % (1000 shuffled labels) · n = 96 prompts" in shown
    assert "– not measured No direction was selected, so there is none to steer by. 91.3 % ✓ met 25.0 % of its" in shown
    assert "35.7 % ✗ not met" in shown
    assert "n = 46 prompts · 2 unscored" in shown
    assert "outcome 0 of 4 met Not met: direction/separation" in shown
    assert "| suppress rate &gt; 40% | **not measured**; –; No direction was selected" in written[1]
    null = "null 4.8 % (8 random directions or of shuffled labels)"
    assert f"| **not met**; 35.7 %; {SEEN}; 95 %: 23.0 % to 50.8 % · {null} · n = 42 prompts |" in written[1]


def test_the_directions_stand_against_each_other(written: tuple[str, str], runs: Path) -> None:
    page, _ = written
    (tuning,) = compared(runs).tunings
    assert tuning.cosines is not None
    assert f"{tuning.cosines.label or tuning.cosines.name}: cosine over layer" in page
    assert "the two directions, layer 1: 1" in page  # of equal vectors
    assert "95 % of those of shuffled labels" in page


def test_what_was_looked_at_is_said(written: tuple[str, str]) -> None:
    """What was asked for, as on the command line; and the tokens that the run found."""
    shown = words_of(written[0])
    assert "96 / 48 / 48" in shown
    assert "method.direction positions=[-1], max_kl=0.1 positions=[-1], max_kl=0.1 not run" in shown
    assert "method.patching min_gap=1.0, min_share=0.02" in shown
    assert "method.safety_tune not run not run steps=100" in shown
    assert "calibrated (kappa 0.89; settings" in shown
    assert "token opens replies to harmful prompts ' I' 71.0 % '<b>|`' 11.0 %" in shown


def test_a_missing_map_says_why(written: tuple[str, str]) -> None:
    assert "Not measured: 1 of 48 harmful prompts are refused, below the floor of 30%." in words_of(written[0])


def test_behaviour_stands_by_kind_by_category_and_by_length(written: tuple[str, str]) -> None:
    html, markdown = written
    shown = words_of(html)
    assert (
        f"merely look unsafe; low is good – not measured The data set has none. 15.0 % {SEEN} 95 %: 8.0 % to 26.0 %"
        in shown
    )
    assert "category harmful prompts refused harmless prompts refused safe lookalikes refused fraud" in shown
    assert "75.0 % 95 %: 30.0 % to 95.4 % · n = 4" in shown
    assert "harmful prompts refused: 87.5\N{NO-BREAK SPACE}%" in html  # the interval, drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "refusal over the length of the reply The same replies" in shown
    assert "harmful, tokens of the reply 16: 0.8 [0.66, 0.89]" in html
    head = r"\| category \| harmful prompts refused \| harmless prompts refused \| safe lookalikes refused \|"
    (rows,) = re.findall(rf"{head}\n\|.*\n((?:\|.*\n)+)", markdown)
    cells = [line.strip("|").split(" | ") for line in rows.splitlines()]
    assert [row[0].strip() for row in cells] == ["fraud", cells[1][0].strip(), "–"]
    assert cells[0][1:3] == ["75.0 %; 95 %: 30.0 % to 95.4 % · n = 4", "0.0 %; 95 %: 0.0 % to 49.0 % · n = 4"]
    assert [cell.strip() for cell in cells[2][1:3]] == ["–", "–"]


def test_what_a_second_judge_says_stands_beside(tmp_path: Path) -> None:
    """Beside a run whose judge had none; and where no run has one, its figures are not there."""
    store(a_run(tmp_path, "one", "base"), base())
    assert "Its judge had no second" not in write(tmp_path, tmp_path / "page")[0].read_text()
    run = a_run(tmp_path, "two", "safety")
    run = replace(run, config={**run.config, "judge": {"kappa": 0.9, "second": "xstest"}})
    store(run, [*by_second_judge(0.8, (0.7, 0.9)), *tuned()])
    shown = words_of(write(tmp_path, tmp_path / "page")[0].read_text())
    assert "second judge none xstest" in shown
    assert "0 what chance gives – not measured Its judge had no second. 0.93 n = 100 replies" in shown
    assert (
        "harmful prompts refused by the second judge; high is good – not measured Its judge had no second. 80.0 %"
        in shown
    )


def test_without_categories_there_is_no_table_of_them(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base"), base())
    for path in write(tmp_path, tmp_path / "page"):
        assert "by category" not in path.read_text()


def test_patching_stands_with_what_it_found_and_how_sure_that_is(written: tuple[str, str]) -> None:
    shown = words_of(written[0])
    for text in (
        "localised 15 critical components; the strongest",
        "14 n = 270 heads",
        "necessity 108.0 % (95 %: 95.0 % to 121.0 % · null 12.0 % (20 random sets of heads, p = 0.048) · n = 48 pairs)",
        "heads ranked alike",
        "0.71 n = 270 heads",
        "rho 0.93 (95 %: 0.88 to 0.96 · n = 111 pairs) Jaccard index of the first ten 0.82 (95 %: 0.67 to 1",
        "6.21 nats 95 %: 5.8 to 6.6 nats · n = 120 pairs",
        "used 111 left out 9",
        "necessity 100.0 % (n = 120 pairs) sufficiency 100.0 %",
        "2.1e-06 log-odds n = 7200 replacements",
        "rows Exact to 1.2e-05 where logits reach 31.",
    ):
        assert text in shown
    assert "– not measured There is no refusing to localise. 14 n" in shown
    assert "Not measured: There is no refusing to localise." in shown
    assert "| used 111; left out 9 |" in written[1]


def test_maps_say_what_they_are(written: tuple[str, str]) -> None:
    assert "heads: necessity At the last token. Outlined: critical." in words_of(written[0])
    assert 'aria-label="share of the gap from -0.3 to 0.3"' in written[0]
    assert 'aria-label="heads: necessity: layer by head"' in written[0]


def test_a_share_beyond_the_whole_has_room_on_its_scale(tmp_path: Path) -> None:
    share = Scalar("patching/recovered", 1.08, (0.95, 1.21), unit="share", label="recovered")
    store(
        a_run(tmp_path, "one", "base"), [*base(), share, replace(share, name="patching/kept", value=0.6, label="kept")]
    )
    found = {row.label: row for section in sections(compared(tmp_path).compared) for row in section.rows}
    assert found["recovered"].scale == (0.0, 1.21)
    assert found["harmful prompts refused"].scale == (0.0, 1.0)


def test_pages_show_the_rows_that_a_table_chose(written: tuple[str, str]) -> None:
    for text in written:
        assert "14 of 270 rows. All 270 rows: usalsabdps/patching_heads.csv." in text.replace("\\_", "_")
    (rows,) = re.findall(r"\| layer \| head \| necessity .*\n\|.*\n((?:\|.*\n)+)", written[1])
    cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
    share = "30.0 %; 95 %: 28.0 % to 32.0 % · p = 0.01"
    assert cells[0] == ["15", "0", share, "15.0 %; p = 0.2", "10.0 %"]
    assert [row[:2] for row in cells[1:3]] == [["16", "1"], ["17", "2"]]
    assert len(cells) == 14


def test_of_very_many_chosen_rows_pages_show_the_first(tmp_path: Path) -> None:
    (heads,) = (one for one in patched(critical=30) if isinstance(one, Table))
    store(a_run(tmp_path, "one", "base"), [*base(), heads])
    (found,) = (
        one for _, own in by_method(compared(tmp_path).compared) for one in own if one.title == "critical heads"
    )
    (sheet,) = found.sheets
    assert sheet.note == "30 of 270 rows, here the first 24. All 270 rows: onebabdps/patching_heads.csv."
    assert len(sheet.rows) == 24


def test_a_run_that_did_not_patch_says_so_beside_one_that_did(tmp_path: Path) -> None:
    earlier = [result for result in tuned() if not result.name.startswith("patching/")]
    store(a_run(tmp_path, "earlier", "safety", ["behaviour", "direction", "steering"]), earlier)
    page, _ = write(tmp_path, tmp_path / "page")
    assert "Patching" not in page.read_text()
    assert "critical heads" not in page.read_text()
    store(a_run(tmp_path, "later", "base"), tuned())
    page, _ = write(tmp_path, tmp_path / "page")
    shown = words_of(page.read_text())
    assert "localised 15 critical components; the strongest: head 15.0 (+8%). – It was not run. engine" in shown
    assert "Not measured: It was not run." in shown


def test_no_chosen_row_is_an_answer_too(tmp_path: Path) -> None:
    because = "No head, attention or MLP output exceeds what swapped labels reach."
    missing = ("patching/critical_heads_necessity", "patching/critical_heads_sufficiency")
    results = [Outcome(r.name, "none", because) if r.name == "patching/outcome" else r for r in patched(critical=0)]
    kept = [result for result in results if result.name not in missing]
    others = [result for result in tuned() if not result.name.startswith("patching/")]
    store(a_run(tmp_path, "diffuse", "safety"), [*others, *kept])
    page, twin = write(tmp_path, tmp_path / "page")
    assert "None of 270 rows." in twin.read_text()
    for path in (page, twin):
        assert because in path.read_text()


def test_a_run_of_some_methods_alone_shows_what_it_concluded(tmp_path: Path) -> None:
    selected = Outcome("direction/outcome", "selected", "Position -1, layer 17.")
    results = [selected, *grids(1, refuses=True), *patched()]
    store(a_run(tmp_path, "one", "chat", methods=["direction", "patching"]), results)
    for path in write(tmp_path, tmp_path / "page"):
        text = path.read_text()
        assert "Position -1, layer 17." in text
        assert "15 critical components" in text
        assert "14 of 270 rows" in text


def test_conclusions_of_methods_come_first_and_once(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base"), tuned())
    store(a_run(tmp_path, "two", "chat"), base())
    one, two = map(conclusions, compared(tmp_path).compared)
    assert "Exact to 1.2e-05 where logits reach 31." not in one  # of patching/engine, which concludes nothing
    assert one[0].startswith("42 of 48")
    assert len(two) == 4  # behaviour and direction give one reason


def test_unfinished_runs_and_other_methods_are_listed(written: tuple[str, str]) -> None:
    shown = words_of(written[0])
    assert "RuntimeError: out of <b>memory</b>" in shown
    assert "running, or killed" in shown
    assert "Other runs Safety tune smol base" in shown
    assert "harmful prompts refused after training 90.0 % 95 %: 80.0 % to 95.0 % · n = 48 prompts" in shown
    assert "training loss: nats over step" in written[0]


def test_filters_work_by_column(written: tuple[str, str]) -> None:
    page = Page(written[0])
    forms = list(page.attributes("form"))
    assert len(forms) == len(replies_of(written[0]))
    assert all("hidden" in form for form in forms)  # until the script has come
    assert [select["data-column"] for select in page.attributes("select")] == ["0", "1", "2", "3", "7"]


def test_provenance_tells_how_to_get_the_run_again(written: tuple[str, str]) -> None:
    for text in written:
        for fact in ("launch.py experiment=demo", "0123456789ab", "float32", "rcm 0.1.0, torch 2.9.0", "hash aaaa"):
            assert fact in re.sub(r"[\\]", "", text)


def test_rows_at_a_price_stand_side_by_side(runs: Path, written: tuple[str, str]) -> None:
    """In both twins; a figure that is not known is a dash, a run that has no such table says why."""
    found = next(
        one for _, own in by_method(compared(runs).compared) for one in own if one.title == "ways to steer, at equal KL"
    )
    (after,) = found.sheets
    assert found.missing == ["smol: Not measured: No direction was selected, so there is none to steer by."]
    rows = [[cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in after.rows]
    assert rows[0] == ["add", "refusal direction", "45.7 %", "0.625", "1.02 nats", "0.05 nats", "0.0 %"]
    assert rows[2] == ["add", "refusal direction", "45.7 %", "-0.625", "1.02 nats", "0.05 nats", "0.0 %"]
    assert [row[5] for row in rows] == ["0.05 nats", "–", "0.05 nats", "–"]
    for page in written:
        assert "ays to steer, at equal KL" in page
        assert "0.625" in page


def test_long_tables_wait_until_they_are_opened(tmp_path: Path) -> None:
    """But for those that chose which of their rows to show."""
    store(a_run(tmp_path, "one", "base"), [*tuned(), *lens()])
    folded = {one.title: one.folded for _, own in by_method(compared(tmp_path).compared) for one in own}
    assert folded["readings of the lens"]
    assert not folded["critical heads"]
    for path in write(tmp_path, tmp_path / "page"):
        assert "The first 12 rows. All 20 rows: onebabdps/logit_lens_readings.csv." in path.read_text().replace(
            "\\_", "_"
        )


def test_what_the_run_summed_up_stands_once(written: tuple[str, str]) -> None:
    assert "summary/targets" not in written[0]
    assert words_of(written[0]).count("outcome 0 of 4 met") == 1


def test_two_runs_of_one_model_are_told_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        store(a_run(tmp_path, "smol", "base", seed=seed), tuned())
    page, twin = write(tmp_path, tmp_path / "page")
    shown = words_of(page.read_text())
    assert "smol base · pairs · seed 0 · run smolbabdps smol base · pairs · seed 1 · run smolbabdps1" in shown
    for run in ("smolbabdps", "smolbabdps1"):
        assert f"smol (run {run}): steered replies, 20 replies" in shown  # and pictures, by the same names
        assert f"<figcaption>smol (run {run})</figcaption>" in page.read_text()
        assert f"run {run})" in twin.read_text()


def test_maps_differ_where_the_comparison_says_before_and_after(tmp_path: Path) -> None:
    """Not between seeds of a model, nor where cells are not the same."""
    for seed in (0, 1):
        store(a_run(tmp_path, "smol", "base", seed=seed), base())
    assert " less " not in words_of(write(tmp_path, tmp_path / "page")[0].read_text())
    moved = [replace(r, columns=["-2"]) if r.name == "direction/map_auroc" else r for r in tuned()]
    store(a_run(tmp_path, "tuned", "safety"), moved)
    text = write(tmp_path, tmp_path / "page")[0].read_text()
    assert text.count("<figcaption>tuned less smol</figcaption>") == 2  # separation and probe accuracy


def test_left_out_runs_say_why(tmp_path: Path) -> None:
    run = a_run(tmp_path, "smol", "base")
    store(run, base())
    store(replace(run, id="again", directory=tmp_path / "again"), base())
    (left_out,) = compared(tmp_path).left_out
    for path in write(tmp_path, tmp_path / "page"):
        text = path.read_text()
        assert "Not compared" in text
        assert left_out.run.id in text
    assert left_out.why in words_of(write(tmp_path, tmp_path / "page")[0].read_text())


def test_figures_with_one_row_share_it(tmp_path: Path) -> None:
    """Where the first of them stands; what one run has not is told once."""
    store(a_run(tmp_path, "one", "base"), base())
    store(a_run(tmp_path, "two", "safety"), tuned())
    found = next(one for one in sections(compared(tmp_path).compared) if one.title == "Patching")
    labels = [row.label for row in found.rows]
    assert labels.count("whole last token") == labels.count("pairs") == 1
    (row,) = (row for row in found.rows if row.label == "pairs")
    assert [cell.details for cell in row.cells] == [("There is no refusing to localise.",), ["used 111", "left out 9"]]


@pytest.mark.parametrize(
    ("scalar", "shown"),
    [
        (Scalar("m/x", 0.5, null=Null(0.12, "random directions", 8)), "null 0.12 (8 random directions)"),
        (Scalar("m/x", 0.5, null=Null(0.12, "a coin")), "null 0.12 (a coin)"),
        (Scalar("m/x", 0.5, null=Null(0.12, "flips", 9, p=0.04)), "null 0.12 (9 flips, p = 0.04)"),
        (Scalar("m/x", 0.5, null=Null(NAN, "flips", 9), n=3, counts="coins"), "0.5 n = 3 coins"),
        (Scalar("m/x", NAN, n=0, counts="coins"), "Not measured: m/x. There were no coins to count."),
        (Scalar("m/x", NAN, n=0, absent="It has no coin."), "Not measured: m/x. It has no coin."),
        (Scalar("m/x", NAN, unit="share", target=0.5), "Not measured: m/x > 50%. The run did not report it."),
        (Scalar("m/x", 0.5, target=0.4, caveat="by guess"), "0.5 ✓ met by guess"),
        (Scalar("m/x", 12.0, unit="count"), "12"),
        (Scalar("m/x", 1.5, unit="bits", target=1.0), "m/x > 1 bits 1.5 bits ✓ met"),
        (Scalar("m/x", 0.3, good="low", hint="of coins"), "of coins; low is good 0.3"),
    ],
)
def test_a_cell_says_all_that_is_known(tmp_path: Path, scalar: Scalar, shown: str) -> None:
    store(a_run(tmp_path, "one", "base", methods=["behaviour", "m"]), [scalar])
    assert shown in words_of(write(tmp_path, tmp_path / "page")[0].read_text())


def test_a_figure_without_a_value_among_others_says_why(tmp_path: Path) -> None:
    shared = {"row": "prices", "unit": "nats"}
    paid, free = Scalar("m/a", 1.5, label="KL", **shared), Scalar("m/b", NAN, label="loss", absent="No text.", **shared)
    store(a_run(tmp_path, "one", "base", methods=["behaviour", "m"]), [paid, free])
    assert "prices KL 1.5 nats loss – (No text.)" in words_of(write(tmp_path, tmp_path / "page")[0].read_text())


def test_changes_stand_pair_by_pair(tmp_path: Path) -> None:
    """What was not asked alike, and what was not tested, is said; of several pairs each has its own table."""
    store(a_run(tmp_path, "smol", "base"), base())
    store(a_run(tmp_path, "tuned", "safety"), tuned())
    (tuning,) = compared(tmp_path).tunings
    found = [
        Change("harmful prompts refused", "share", 0.02, 0.88, (0.7, 0.93), 0.001, 2.5, 48),
        Change("harmless prompts refused", "share", 0.0, 0.04, (-0.02, 0.1), 0.3),
        Change("separation", "sigma", 1.4, 4.2, (NAN, NAN), NAN),
    ]
    pair = replace(tuning.pairs[0], changes=found)
    (sheet,) = sheets(replace(tuning, pairs=[pair]))
    assert sheet.title == "smol → tuned"
    assert "Not asked the same prompts, so not compared within them: harmless prompts refused." in sheet.note
    assert "so not tested: separation." in sheet.note
    rows = [
        [f"{cell.text} {cell.detail}".strip().replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in sheet.rows
    ]
    refused = ["2.0 %", "88.0 %", "+86.0 % 95 %: 70.0 % to 93.0 %", "0.001 significant", "2.5", "48"]
    assert rows[0] == ["harmful prompts refused", *refused]
    assert rows[1][4:] == ["0.3 not significant", "–", "others"]
    assert rows[2] == ["separation", "1.40 σ", "4.20 σ", "+2.80 σ", "–", "–", "others"]
    both = list(sheets(replace(tuning, pairs=[pair, pair])))
    assert [one.title for one in both] == [f"smol → tuned, {pair.name}: {pair.verdict.value}"] * 2


def test_transplants_are_two_tables(tmp_path: Path) -> None:
    """Of all runs that transplanted, in the columns that their own tables show, and not once more below them."""
    columns = ("source", "run", "outcome", "force", "force_low", "force_high", "force_n", "force_null", "force_p")
    shown = [Column("source", "direction of"), Column("outcome"), Column("force", "forced", "share", "when added")]
    in_parts = [Column("source"), Column("operation"), Column("along", "share along", "share", "of the whole")]
    for name, stage, source in (("smol", "base", "tuned"), ("tuned", "safety", "smol")):
        rows = [(source, "one", "nothing", 0.25, 0.1, 0.4, 40, 0.2, 0.3)]
        matrix = Table("transplant/matrix", columns, rows, "other directions", "What each does in each.", shown)
        parts = [(source, "one", operation, 0.9, 0.8, 1.0) for operation in ("ablate", "add")]
        named = ("source", "run", "operation", "along", "along_low", "along_high")
        decomposition = Table("transplant/decomposition", named, parts, "in parts", "Of its own.", in_parts)
        store(a_run(tmp_path, name, stage, methods=["transplant"]), [matrix, decomposition])
    page, twin = write(tmp_path, tmp_path / "page")
    words = words_of(page.read_text())
    cell = "25.0 % 95 %: 10.0 % to 40.0 % · null 20.0 % · n = 40 · p = 0.3"
    head = "Transplants other directions What each does in each. direction of in outcome forced when added"
    assert f"{head} smol tuned nothing {cell} tuned smol nothing {cell}" in words
    share = "90.0 % 95 %: 80.0 % to 100.0 %"
    of_smol, of_tuned = (f"{pair} ablate {share} {pair} add {share}" for pair in ("smol tuned", "tuned smol"))
    assert f"in parts Of its own. direction of in operation share along of the whole {of_smol} {of_tuned}" in words
    for hint in ("when added", "of the whole"):
        assert page.read_text().count(hint) == 1
    assert "| smol | tuned | nothing | 25.0 %; 95 %: 10.0 % to 40.0 %" in twin.read_text()
    assert "### in parts" in twin.read_text()


# --- a method that nobody here knows ----------------------------------------------------------------------------------


def nameless(result: Result) -> Result:
    """As a run says it that knows no labels."""
    if isinstance(result, Outcome):
        return replace(result, label="outcome")
    if isinstance(result, Scalar):
        return replace(result, label="", hint="", unit="", row="")
    if isinstance(result, Table):
        return replace(result, label="", hint="", shown=())
    return replace(result, label="", hint="")


def test_a_method_that_nobody_knows_shows_everything(tmp_path: Path) -> None:
    """Its figures, map, curve, table and transcripts, with labels, units and hints; two of its runs side by side."""
    store(a_run(tmp_path, "smol", "base", methods=["logit_lens"]), lens())
    store(a_run(tmp_path, "smol-refusal", "safety", methods=["logit_lens"]), lens(0.05))
    page, twin = write(tmp_path, tmp_path / "page")
    html, markdown = page.read_text(), twin.read_text()
    shown = words_of(html)
    for text in (
        "Other runs Logit lens smol base",
        "Logit lens reading late decision The lens reads the refusal late.",
        "depth of the decision where the lens first reads a refusal; low is good 3.5 blocks 95 %: 3 to 4 blocks",
        "null 1.5 blocks (20 shuffled layers, p = 0.03) · n = 12 replies 3.55 blocks",
        "sharpness > 50% 61.0 % ✓ met",
        "readings of the lens Block by block. smol The first 12 rows.",
        "block what it reads of the mass 0 50.0 % 95 %: 40.0 % to 60.0 % · n = 12",
        "what the lens reads In bits, of the last token.",
        "the lens over blocks Deeper is later.",
        "bits against cost Low and left is cheap.",
        "what the lens goes through Layers go upward.",
        "smol: replies under the lens, 1 reply As is.",
    ):
        assert text in shown
    assert html.count('aria-label="what the lens reads: block by prompt"') == 2
    assert html.count('aria-label="bits against cost: bits read against cost in nats, by surprise in bits"') == 2
    assert html.count('aria-label="the lens over blocks: bits over block"') == 1  # both in one frame
    circuit = "what the lens goes through: 4 components by share of the reading, 3 edges by bits passed on"
    assert html.count(f'aria-label="{circuit}"') == 2
    assert html.count('aria-label="share of the reading from -0.55 to 0.55"') == 1  # one scale for both
    assert 'aria-label="bits from -0.45 to 0.45"' in html  # one scale for both
    for text in (
        "## Logit lens",
        "| depth of the decision | 3.5 blocks; 95 %: 3 to 4 blocks · null 1.5 blocks (20 shuffled layers",
        "- depth of the decision: where the lens first reads a refusal; low is good",
        "### Logit lens: readings of the lens",
        "| block | what it reads |",
        "replies under the lens",
    ):
        assert text in markdown


def test_edges_that_are_too_many_to_be_drawn_are_told_with_their_run(tmp_path: Path) -> None:
    (one,) = (one for one in lens() if isinstance(one, Diagram))
    many = [Node(f"word {i}", "source", -1, NAN) for i in range(130)]
    crowd = replace(one, nodes=[*one.nodes, *many], edges=[Edge(word.name, "0.1", 1.0) for word in many])
    store(a_run(tmp_path, "few", "base", methods=["logit_lens"]), [one])
    store(a_run(tmp_path, "crowd", "safety", methods=["logit_lens"]), [crowd])
    shown = words_of(write(tmp_path, tmp_path / "page")[0].read_text())
    assert "Layers go upward. Drawn are the 120 strongest edges; left out are 10 of 130 (crowd)." in shown


def test_a_caveat_stands_wherever_the_result_does(tmp_path: Path) -> None:
    """On the page, in its twin and in the paper, beside what has one, and nothing else."""
    marked = [replace(one, caveat="by guess") for one in lens()]  # type: ignore[arg-type]
    shared = [Scalar("logit_lens/a", 1.5, label="KL", row="prices", caveat="by guess")]
    store(a_run(tmp_path, "smol", "base", methods=["logit_lens"]), [*marked, *shared])
    store(a_run(tmp_path, "other", "base", methods=["logit_lens"]), lens())
    page, twin = write(tmp_path, tmp_path / "page", paper=True)
    shown, markdown = words_of(page.read_text()), twin.read_text()
    for text in (
        "late decision by guess The lens",
        "3.5 blocks by guess 95 %",
        "61.0 % ✓ met by guess",
        "KL 1.5 (by guess)",
        "smol (by guess) The first 12 rows.",
        "smol: replies under the lens (by guess), 1 reply",
    ):
        assert text in shown
    assert page.read_text().count("<figcaption>smol (by guess)</figcaption>") == 3  # map, circuit and cloud
    assert "smol (by guess)</text>" in page.read_text()  # its line in the curve of both
    for text in ("3.5 blocks; by guess; 95 %", "replies under the lens (by guess)"):
        assert text in markdown
    assert "by guess" in "".join(one.read_text() for one in (tmp_path / "page/paper").rglob("*.csv"))
    assert "other (by guess)" not in shown


def test_a_run_without_labels_shows_names(tmp_path: Path) -> None:
    store(a_run(tmp_path, "smol", "base", methods=["logit_lens"]), list(map(nameless, lens())))
    page, twin = write(tmp_path, tmp_path / "page")
    shown = words_of(page.read_text())
    assert "logit_lens/depth low is good 3.5" in shown
    assert "logit_lens/sharpness > 0.5 0.61 ✓ met" in shown
    assert "block read word 0 0.5 95 %: 0.4 to 0.6 · n = 12 token 0" in shown
    for name in ("logit_lens/grid", "logit_lens/curve", "logit_lens/readings", "logit_lens/transcripts"):
        assert name in page.read_text()
    assert "logit\\_lens/readings" in twin.read_text()


def test_labels_of_some_runs_serve_all(tmp_path: Path) -> None:
    store(a_run(tmp_path, "old", "base", methods=["logit_lens"]), list(map(nameless, lens())))
    store(a_run(tmp_path, "new", "safety", methods=["logit_lens"]), lens())
    shown = words_of(write(tmp_path, tmp_path / "page")[0].read_text())
    assert "depth of the decision where the lens" in shown
    assert "logit_lens/depth" not in shown


def test_checkpoints_are_drawn_over_training(tmp_path: Path) -> None:
    """Of each method the figures of one unit in one picture, each with its null; whatever the method."""
    for step in (10, 20, 30):
        run = a_run(tmp_path, "smol", "safety", methods=["behaviour", "logit_lens"])
        model = {**run.config["model"], "adapter": f"tuning/step-{step:04}"}
        results = [r for r in (*base(), *lens(step / 100)) if r.name.split("/")[0] in ("behaviour", "logit_lens")]
        changed = replace(run, id=f"at{step}", directory=tmp_path / f"at{step}", config={**run.config, "model": model})
        store(changed, results)
    (series,) = compared(tmp_path).emergence
    page, twin = write(tmp_path, tmp_path / "page")
    shown = words_of(page.read_text())
    assert f"{series.name} over 3 checkpoints. {series.sentence}" in shown
    assert "depth of the decision, training step 20: 3.7 [3, 4]" in page.read_text()
    assert "depth of the decision: null, training step 20: 1.5" in page.read_text()
    assert "logit lens: depth of the decision: blocks over training step" in page.read_text()
    assert "harmful prompts refused: null, training step 10: 0.042" in page.read_text()
    (row,) = re.findall(r"\| 20 \|.*", twin.read_text())
    assert "3.7 blocks" in row


def test_warnings_of_the_comparison_stand_first(runs: Path, written: tuple[str, str]) -> None:
    (warning,) = compared(runs).warnings
    assert "trained on 25.0\N{NO-BREAK SPACE}% of its test prompts" in warning.sentence
    assert f"In short Careful. {words_of(warning.sentence)}" in words_of(written[0])
    assert "**Careful.** The adapter of smol-refusal" in written[1]


def test_the_record_on_disk_is_left_as_it_was(runs: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    write(runs, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before
    assert all(json.loads(path.read_text()) for path in runs.glob("*/run.json"))
    assert json.loads((tmp_path / "comparison.json").read_text())["schema"] == 1


# --- from the command line --------------------------------------------------------------------------------------------


def test_it_logs_where_it_wrote(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert main([str(runs), "--out", str(tmp_path / "page")]) == 0
    assert str(tmp_path / "page" / "index.html") in caplog.text
    written = {path.name for path in (tmp_path / "page").iterdir()}
    assert written == {"index.html", "report.md", "comparison.json", "slides"}


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        caplog.clear()
        assert main([str(folder), "--out", str(tmp_path / "page")]) == 1
        (record,) = caplog.records
        assert str(folder) in record.getMessage()
    assert not (tmp_path / "page").exists()


def test_a_place_that_cannot_be_written_to_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Cannot write to .*file \(.*--out\.$"):
        write(runs, tmp_path / "file")


def test_a_folder_of_unfinished_runs_makes_a_page(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        fail(a_run(tmp_path, "broken", "chat"), InputError("There is no such file."))
    page, twin = write(tmp_path, tmp_path / "page")
    for path in (page, twin):
        assert "nothing to compare yet" in path.read_text()
        assert "There is no such file." in path.read_text()


def test_provenance_tells_how_the_model_was_checked(tmp_path: Path) -> None:
    rows = (("prompts of a batch", "read once", 3e-7), ("linear layers", "oneDNN", None))
    checked = Table("summary/self_checks", ("what", "way", "off_by"), rows)
    readings = [reading_of(tmp_path, "one", "base", [checked]), reading_of(tmp_path, "two", "chat")]
    told = ["prompts of a batch (read once, off by 3e-07); linear layers (oneDNN)", "none"]
    assert facts(readings)["self-checks"] == told


def test_chosen_runs_are_compared_wherever_they_lie(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Folders of runs and single runs, each run once."""
    fill(tmp_path / "a")
    chosen = stored_runs(tmp_path / "a")[:2]
    assert main([*(str(run.directory) for run in chosen), str(chosen[0].directory), "--out", str(tmp_path / "p")]) == 0
    told = json.loads((tmp_path / "p" / "comparison.json").read_text())
    assert sorted(run["id"] for run in told["runs"]) == sorted(run.id for run in chosen)
    assert main([str(tmp_path / "a"), str(chosen[0].directory), "--out", str(tmp_path / "q")]) == 0
    told = json.loads((tmp_path / "q" / "comparison.json").read_text())
    assert len(told["runs"]) == len(stored_runs(tmp_path / "a"))
    (tmp_path / "a" / "multirun.yaml").touch()  # a file of Hydra's, which a shell finds for a/*
    assert main([*map(str, sorted((tmp_path / "a").iterdir())), "--out", str(tmp_path / "s")]) == 0
    assert (tmp_path / "s" / "comparison.json").read_text() == (tmp_path / "q" / "comparison.json").read_text()
    assert main([str(tmp_path / "a" / "multirun.yaml"), "--out", str(tmp_path / "r")]) == 1
    assert "There are no runs in" in caplog.text
    assert main([str(tmp_path / "a"), str(tmp_path / "nowhere"), "--out", str(tmp_path / "r")]) == 1
    assert "There is no folder" in caplog.text
    assert not (tmp_path / "r").exists()


def test_the_page_is_opened_where_there_is_a_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "a")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or len(opened) == 1)
    arguments = [str(tmp_path / "a"), "--out", str(tmp_path / "p"), "--open"]
    assert main(arguments) == 0
    assert opened == [(tmp_path / "p" / "index.html").as_uri()]
    assert "no browser" not in caplog.text
    assert main(arguments) == 0
    assert "There is no browser here" in caplog.text


# --- what stands in the open, and what is folded ----------------------------------------------------------------------

WORDS = {
    "late": Word("the lens reads it late", "Look deeper."),
    "early": Word("the lens reads it early", "Look <b>less</b> deep."),
}


def test_the_words_of_outcomes_are_explained_as_the_results_say_it(tmp_path: Path) -> None:
    """Those that occur first, each once; where no result explains any, only how to read figures."""
    for model in ("one", "two"):
        said = Outcome("logit_lens/outcome", "late", "The lens reads the refusal late.", words=WORDS)
        store(a_run(tmp_path, model, "base", methods=["behaviour", "logit_lens"]), [said])
    page, twin = write(tmp_path, tmp_path / "page")
    shown = words_of(page.read_text())
    assert shown.count("late Logit lens The lens reads it late. Look deeper.") == 1
    assert "Words that these methods may also come to early Logit lens The lens reads it early. Look <b>less" in shown
    assert "| late | Logit lens | The lens reads it late. | Look deeper. |" in twin.read_text()
    assert "reads it early" not in twin.read_text()


def test_without_words_there_is_nothing_to_explain(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base", methods=["behaviour", "logit_lens"]), lens())
    page, twin = write(tmp_path, tmp_path / "page")
    assert "may also come to" not in page.read_text()
    assert "How to read the outcomes" not in twin.read_text()


def test_rows_that_no_run_measured_are_one_line(tmp_path: Path) -> None:
    a, b, c = (Scalar(f"m/{name}", value, label=name) for name, value in (("a", NAN), ("b", NAN), ("c", 0.5)))
    store(a_run(tmp_path, "one", "base", methods=["behaviour", "m"]), [a, replace(b, absent="It has no b."), c])
    (section,) = sections(compared(tmp_path).compared)
    assert [row.label for row in section.measured] == ["c"]
    assert section.missing == "Not measured: a, b. The run did not report it. It has no b."
    store(a_run(tmp_path, "two", "safety", methods=["behaviour", "m"]), [replace(a, value=0.1), b, c])
    (section,) = sections(compared(tmp_path).compared)
    assert [row.label for row in section.measured] == ["a", "c"]


def test_why_one_run_lacks_a_figure_is_not_said_of_another(tmp_path: Path) -> None:
    """But what the absence means in any run is, which those say that have the figure."""
    few = Scalar("m/x", NAN, label="x", absent="There are 3 prompts.")
    plain = Scalar("m/y", 0.5, label="y")
    store(a_run(tmp_path, "one", "base", methods=["behaviour", "m"]), [few, plain])
    store(a_run(tmp_path, "two", "safety", methods=["behaviour", "m"]), [plain])
    (section,) = sections(compared(tmp_path).compared)
    (row,) = (row for row in section.rows if row.label == "x")
    assert [cell.detail for cell in row.cells] == ["There are 3 prompts.", "The run did not report it."]
    having = Scalar("m/x", 0.5, label="x", absent="The data set has none.")
    store(a_run(tmp_path, "three", "sft", methods=["behaviour", "m"]), [having, plain])
    (section,) = sections(compared(tmp_path).compared)
    (row,) = (row for row in section.rows if row.label == "x")
    assert {cell.detail for cell in row.cells} == {"There are 3 prompts.", "", "The data set has none."}


def test_many_differences_fold_under_a_count_and_what_was_trained_on_never_does(tmp_path: Path) -> None:
    seen = Scalar("behaviour/seen_in_training", 1 / 3)
    for name, stage, settings in (("one", "base", {}), ("two", "safety", {"max_kl": 0.2, "depth": 2, "max_depth": 3})):
        run = a_run(tmp_path, name, stage)
        method = {**run.config["method"], "direction": {**run.config["method"]["direction"], **settings}}
        store(replace(run, config={**run.config, "method": method}), [seen] if stage == "safety" else [])
    found = groups(compared(tmp_path).warnings)
    assert [(len(one.warnings), one.folded) for one in found] == [(1, False), (3, True)]
    assert "trained on" in found[0].warnings[0].sentence
    assert found[1].title == (
        "3 reasons to doubt whether what two runs differ by is the models' doing: the compared runs differ in "
        "method.direction.max_kl, method.direction.max_depth and method.direction.depth."
    )


def test_models_share_a_frame_where_their_points_are_the_same(tmp_path: Path) -> None:
    line, other = Line("readings", [0.1, 0.2]), Line("controls", [0.0, 0.1])
    drawn = Curve("m/c", [1.0, 2.0], [line, other], "block", "share", label="the curve")
    for name, stage, curve in (("one", "base", drawn), ("two", "safety", drawn)):
        store(a_run(tmp_path, name, stage, methods=["behaviour", "m"]), [curve])
    (row,) = (row for one in pictures.by_method(compared(tmp_path).compared) for row in one.rows)
    assert [panel.title for panel in row.panels] == ["readings"]
    assert [panel.title for panel in row.folded] == ["one", "two"]
    store(a_run(tmp_path, "three", "sft", methods=["behaviour", "m"]), [replace(drawn, x=[1.0, 3.0])])
    (row,) = (row for one in pictures.by_method(compared(tmp_path).compared) for row in one.rows)
    assert [panel.title for panel in row.panels] == ["one", "three", "two"]
    assert not row.folded


def test_a_gguf_is_called_by_its_file_whatever_option_loads_it(tmp_path: Path) -> None:
    run = a_run(tmp_path, "smollm2-135m", "chat")
    model = {**run.config["model"], "path": "/models/Some-Model.Q4_K_M.gguf"}
    store(replace(run, config={**run.config, "model": model}), tuned())
    (reading,) = compared(tmp_path).compared
    assert facts([reading])["model"] == ["Some-Model.Q4_K_M (chat; model=smollm2-135m)"]
    assert "Some-Model.Q4_K_M chat · pairs" in words_of(write(tmp_path, tmp_path / "page")[0].read_text())
