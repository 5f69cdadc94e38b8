"""The page in a browser: values by pointer and keys, filters, no error, and nothing asked from the network."""

from pathlib import Path

import pytest

from rcm.report import write
from tests.browser import CHROMIUM, Page, browsing
from tests.test_report import a_run, base, store, tuned

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, stage, results in (("base", "base", base()), ("tuned", "safety", tuned())):
        store(a_run(folder, name, stage), results)
    return write(folder, folder / "page")[0]


def opened(browser: Page, page: Path, width: int = 1280, dark: bool = False) -> Page:
    browser.open(page, width, dark)
    return browser


def test_a_reader_finds_values_and_filters_replies(page: Path, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        opened(browser, page)
        tip = "document.getElementById('tip')"
        assert browser.value(f"{tip}.hidden")
        browser.hover("figure svg rect:has(> title)")
        assert not browser.value(f"{tip}.hidden")
        assert "layer" in browser.value(f"{tip}.textContent")

        browser.value("document.querySelector('figure svg').focus()")
        browser.press("ArrowRight")
        first = browser.value(f"{tip}.textContent")
        browser.press("ArrowRight")
        second = browser.value(f"{tip}.textContent")
        assert first != second
        browser.press("ArrowLeft")
        assert browser.value(f"{tip}.textContent") == first
        browser.press("Escape")
        assert browser.value(f"{tip}.hidden")

        browser.value("document.querySelector('details.transcripts').open = true")
        shown = "[...document.querySelector('details.transcripts .said').tBodies[0].rows].filter(r => !r.hidden).length"
        every = browser.value(shown)
        browser.value(
            "(() => { const s = document.querySelector('details.transcripts input[type=search]');"
            "s.value = 'no such words'; s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        assert (browser.value(shown), every > 0) == (0, True)
        assert browser.complaints == []
        assert [url for url in browser.requests if url != page.as_uri()] == []


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(page: Path, tmp_path: Path, dark: bool) -> None:
    with browsing(tmp_path) as browser:
        opened(browser, page, width=390, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= 390
        grounds = browser.value("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, grounds.strip("rgb()").split(","))) < 200) == dark
        assert browser.complaints == []
