"""The page in a browser: values by pointer and keys, filters, no error, and nothing asked from the network."""

from pathlib import Path

import pytest

from rcm.record.results import Transcripts
from rcm.report import write
from tests.browser import CHROMIUM, Page, browsing
from tests.report.samples import a_run, base, lens, store, tuned

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, stage, results in (("base", "base", base()), ("tuned", "safety", tuned())):
        store(a_run(folder, name, stage), results)
    for name in ("base", "tuned"):
        store(a_run(folder, name, "chat", ["logit_lens"]), lens())
    return write(folder, folder / "page")[0]


def opened(browser: Page, page: Path, width: int = 1280, dark: bool = False) -> Page:
    browser.open(page, width, dark)
    return browser


def unfold(browser: Page) -> None:
    """Open all transcripts and tables, and wait until the page has noticed."""
    each = "[...document.querySelectorAll('details')].map"
    noticed = "d => new Promise(done => { d.addEventListener('toggle', () => setTimeout(done)); d.open = true; })"
    browser.value(f"Promise.all({each}({noticed})).then(() => null)")


def lay_out_everything(browser: Page) -> None:
    """All of it, not only what is near: what lies out of sight is neither laid out nor able to stick out."""
    rule = "* { content-visibility: visible !important }"
    style = f"Object.assign(document.createElement('style'), {{ textContent: '{rule}' }})"
    browser.value(f"void document.head.append({style})")


CUT = """[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.textContent.trim().slice(0, 60))"""


STICKING_OUT = """[...document.querySelectorAll('.figures :is(td, th)')].filter((cell) => {
  const { left, right } = cell.getBoundingClientRect();
  return [...cell.querySelectorAll('*')].some((part) => {
    const at = part.getBoundingClientRect();
    return at.width && (at.right > right + 1 || at.left < left - 1);
  });
}).map((cell) => cell.textContent.trim().slice(0, 60))"""


def test_a_reader_finds_values_and_filters_replies(page: Path, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        opened(browser, page)
        tip = "document.getElementById('tip')"
        assert browser.value(f"{tip}.hidden")
        browser.hover("#maps figure svg rect:has(> title)")
        assert not browser.value(f"{tip}.hidden")
        assert "layer" in browser.value(f"{tip}.textContent")

        browser.value("document.querySelector('#maps figure svg').focus()")
        browser.press("ArrowRight")
        first = browser.value(f"{tip}.textContent")
        browser.press("ArrowRight")
        second = browser.value(f"{tip}.textContent")
        assert first != second
        browser.press("ArrowLeft")
        assert browser.value(f"{tip}.textContent") == first
        browser.press("Escape")
        assert browser.value(f"{tip}.hidden")

        unfold(browser)
        shown = (
            "[...document.querySelector('details.transcripts .replies').tBodies[0].rows].filter(r => !r.hidden).length"
        )
        every = browser.value(shown)
        replies = [
            len(one.rows)
            for results in (base(), tuned(), lens(), lens())
            for one in results
            if isinstance(one, Transcripts)
        ]
        assert every == replies[0]
        assert browser.value("document.querySelectorAll('.replies tbody tr').length") == sum(replies)
        assert browser.value("document.querySelectorAll('.replies tbody :not(tr, td, span.tag)').length") == 0
        assert browser.value("document.querySelector('main').textContent.includes('<script>alert(1)</script>')")
        browser.value(
            "(() => { const s = document.querySelector('details.transcripts input[type=search]');"
            "s.value = 'no such words'; s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        assert (browser.value(shown), every > 0) == (0, True)
        assert browser.complaints == []
        assert [url for url in browser.requests if url != page.as_uri()] == []


def test_the_edges_of_a_node_that_is_pointed_at_stand_out(page: Path, tmp_path: Path) -> None:
    """Of the four nodes that the lens goes through the head has all three edges."""
    with browsing(tmp_path) as browser:
        opened(browser, page)
        lay_out_everything(browser)
        bright = (
            "[...document.querySelector('svg:has(.edge[data-ends])').querySelectorAll('.edge')]"
            ".filter((edge) => getComputedStyle(edge).opacity === '1').length"
        )
        assert browser.value(bright) == 3
        for node, edges in (("MLP 1", 1), ("refusal", 1), ("0.1", 3)):
            find = f"[...document.querySelectorAll('[data-node]')].find(n => n.textContent.startsWith('{node} ')"
            find += f" || n.dataset.described?.startsWith('{node} '))"
            browser.value(f"void {find}.dispatchEvent(new PointerEvent('pointerover', {{ bubbles: true }}))")
            assert browser.value("document.getElementById('tip').textContent").startswith(node)
            assert browser.value(bright) == edges
        browser.hover("svg path.reach:last-of-type")
        assert "→" in browser.value("document.getElementById('tip').textContent")
        assert browser.value(bright) == 3
        assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(page: Path, tmp_path: Path, dark: bool) -> None:
    with browsing(tmp_path) as browser:
        opened(browser, page, width=390, dark=dark)
        unfold(browser)
        lay_out_everything(browser)
        assert browser.value("document.documentElement.scrollWidth") <= 390
        grounds = browser.value("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, grounds.strip("rgb()").split(","))) < 200) == dark
        assert browser.complaints == []


@pytest.mark.parametrize("width", [360, 390, 700, 701, 1024, 1280, 1920])
def test_nothing_is_cut_at_any_width(page: Path, tmp_path: Path, width: int) -> None:
    """No part sticks out of the page, and no cell of the figures out of its own; what is wider scrolls in a box."""
    with browsing(tmp_path) as browser:
        opened(browser, page, width)
        unfold(browser)
        lay_out_everything(browser)
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        assert browser.value(STICKING_OUT) == []
        outside = "[...document.querySelectorAll('table')].filter((one) => !one.closest('.scroll')).length"
        assert browser.value(outside) == 0
        if width <= 700:
            assert (
                browser.value("getComputedStyle(document.querySelector('.figures td[data-label]')).display") == "block"
            )
            assert not any("What a good analysis shows" in cut for cut in browser.value(CUT))
        if width >= 1280:
            assert browser.value(CUT) == []


def test_a_cell_that_sticks_out_is_found(page: Path, tmp_path: Path) -> None:
    """What the test above looks for, planted."""
    with browsing(tmp_path) as browser:
        opened(browser, page)
        lay_out_everything(browser)
        wide = "{ textContent: 'x'.repeat(400), style: 'white-space: nowrap' }"
        wide = f"Object.assign(document.createElement('span'), {wide})"
        browser.value(f"void document.querySelector('.figures td[data-label] .strip').append({wide})")
        assert len(browser.value(STICKING_OUT)) == 1


def test_what_is_folded_is_printed_but_for_transcripts(page: Path, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        opened(browser, page)
        shut = "document.querySelectorAll('details:not(.transcripts, [open])').length"
        before = browser.value(shut)
        browser.value("void dispatchEvent(new Event('beforeprint'))")
        assert (browser.value(shut), before > 0) == (0, True)
        assert browser.value("document.querySelectorAll('details.transcripts[open]').length") == 0
        browser.value("void dispatchEvent(new Event('afterprint'))")
        assert browser.value(shut) == before
        assert browser.complaints == []
