"""The documents hold to the code: settings and their defaults, names in commands; and a site that fetches nothing."""

import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from rcm.prompts import File
from rcm.record.results import Word
from tests.record.test_words import MODULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    **{f"methods/{path.stem}.md": path for path in sorted((ROOT / "conf" / "method").glob("*.yaml"))},
    "scale.md": ROOT / "conf" / "device" / "auto.yaml",
    "wandb.md": ROOT / "conf" / "tracker" / "wandb.yaml",
}
del PAGES["methods/map.md"]  # has no settings of its own
HELD = sorted(PAGES)
MARKDOWN = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
README_LINES = 150


def documented(page: str) -> dict[str, str]:
    """The settings of a page's table, and the defaults that it gives them, as written."""
    table = re.search(r"^\| setting \| default \| unit .*\n\|[-|]+\|\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    assert table is not None
    return dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", table[1], flags=re.MULTILINE))


def same(written: str, default: Any) -> bool:
    """Whether what stands in a table is the default: as YAML, or, of texts, how many there are."""
    if isinstance(default, list) and default and all(isinstance(one, str) for one in default):
        return written == f"{len(default)} texts"
    if isinstance(default, str) and (variable := re.fullmatch(r"\$\{oc\.env:\w+,(.*)\}", default)):
        default = yaml.safe_load(variable[1])  # where the environment says nothing
    return bool(yaml.safe_load(written) == default)


@pytest.mark.parametrize("page", HELD)
def test_every_setting_is_documented_with_its_default(page: str) -> None:
    told = documented((DOCS / page).read_text(encoding="utf-8"))
    settings = yaml.safe_load(PAGES[page].read_text(encoding="utf-8"))
    settings.pop("_target_")
    assert list(told) == list(settings)
    assert [name for name in told if not same(told[name], settings[name])] == []


def test_a_default_that_drifts_is_seen() -> None:
    page = "| setting | default | unit | meaning |\n|---|---|---|---|\n"
    page += "| `floor` | `0.3` | | |\n| `lengths` | `[8]` | | |\n"
    told = documented(page)
    assert same(told["floor"], 0.3)
    assert not same(told["floor"], 0.31)
    assert not same(told["lengths"], [8, 16])
    assert same("2 texts", ["a", "b"])
    assert not same("2 texts", ["a"])


def test_every_method_has_a_page_that_answers_the_same_questions() -> None:
    for page in (name for name in HELD if name.startswith("methods/")):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert "**Question.**" in text, page
        headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        wanted = ["Algorithm", "Formula", "Settings", "Cost", "What it does not show", "References"]
        assert headings == wanted, page


def test_the_prompt_file_of_the_documents_is_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", (DOCS / "own-prompts.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    path = tmp_path / "my_prompts.json"
    path.write_text(shown, encoding="utf-8")
    split = File(path=str(path), template="chat").load()
    told = json.loads(shown)
    assert split.paired
    assert [prompt.text for prompt in split.train.harmful] == [one["prompt"] for one in told["train"]["harmful"]]
    assert split.train.harmful[0].category == "theft"
    assert [prompt.text for prompt in split.lookalike] == told["lookalike"]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_and_pictures_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    broken = [
        link
        for link in links
        if not re.match(r"https?:|mailto:|#", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_in_commands_exist(page: Path) -> None:
    """Names of options, and of settings of methods, in every command line that a page shows."""
    text = page.read_text(encoding="utf-8")
    shown = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    for method, setting in re.findall(r"\bmethod\.(\w+)\.(\w+)=", shown):
        path = ROOT / "conf" / "method" / f"{method}.yaml"
        if path.exists():  # else it is a method of the page's own
            assert setting in yaml.safe_load(path.read_text(encoding="utf-8")), f"method.{method}.{setting}"
    for group, option in re.findall(r"\b(dataset|judge|device|tracker|experiment)=([\w.-]+)", shown):
        assert (ROOT / "conf" / group / f"{option}.yaml").exists(), f"{group}={option}"
    for module in re.findall(r"python -m ((?:rcm|benchmarks)[\w.]*)", shown):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_LINES


def test_the_citation_is_whole() -> None:
    """What version 1.2.0 of the format requires, and the package's own version and licence."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"]
    assert cited["title"].startswith("rcm")
    assert cited["authors"] == [{"name": "rcm contributors"}]
    assert cited["type"] == "software"
    for name, key in (("version", "version"), ("license", "license")):
        assert cited[key] == re.search(rf'^{name} = "(.+)"$', project, flags=re.MULTILINE)[1]  # type: ignore[index]


class Fetched(HTMLParser):
    """What a browser fetches when it opens a page; not where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses += [value for name in ("src", "srcset") if (value := given.get(name))]
        elif tag == "link" and given.get("rel") != "canonical" and (value := given.get("href")):
            self.addresses.append(value)


def fetched(page: str) -> list[str]:
    """What of a page's comes from another host."""
    reader = Fetched()
    reader.feed(page)
    return [address for address in reader.addresses if re.match(r"(https?:)?//", address)]


def test_what_comes_from_another_host_is_seen() -> None:
    page = (
        '<a href="https://a.b"><link rel="stylesheet" href="//fonts.b/x.css"><script src="https://c.d/x.js"></script>'
    )
    assert fetched(page) == ["//fonts.b/x.css", "https://c.d/x.js"]


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # and one for what is not found
    assert {str(page): found for page in pages if (found := fetched(page.read_text(encoding="utf-8")))} == {}
    sheets = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.css"))
    assert re.findall(r"(?:@import\s*|url\(\s*)[\"']?(?:https?:)?//[^)\"']*", sheets) == []
    reference = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("rcm.api.models.load", "rcm.methods.Method", "rcm.methods.Study", "rcm.record.results.Scalar"):
        assert f'id="{name}"' in reference, name


def test_every_word_of_an_outcome_is_explained_where_people_read() -> None:
    """What the code says of its words is on the page; the documents say what to do, and leave none out."""
    modules = [importlib.import_module(name) for name in (*MODULES, "rcm.comparison.verdict")]
    dictionaries = [value for module in modules for value in vars(module).values() if isinstance(value, dict)]
    words = {key for one in dictionaries for key, value in one.items() if isinstance(value, Word)}
    table = (DOCS / "reading.md").read_text(encoding="utf-8").partition("## An outcome")[2]
    assert len(words) > 20
    assert sorted(word for word in words if f"`{word}`" not in table) == []
