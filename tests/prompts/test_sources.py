"""Prompts out of the Hugging Face hub, through its own client, from a server that answers as the hub does."""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rcm.errors import InputError
from rcm.packaged import CONF
from rcm.prompts import Split, sources, texts
from rcm.prompts.file import File
from rcm.record.identity import data_digest

Said = Callable[[Callable[[], object]], str]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to dataset lab/gated is restricted."}
PROMPTS = ["Say one.", "Say two."]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


ROWS: list[dict[str, Any]] = [{"prompt": text, "kind": None} for text in PROMPTS]
TABLES = {
    "a.csv": b"prompt\nSay one.\nSay two.\n",
    "data/a.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "a.json": json.dumps(PROMPTS).encode(),
    "a.parquet": parquet(ROWS),
}
PART = {"harmful": ["one"], "harmless": ["two"]}
PARTS = {"parts.json": json.dumps(dict.fromkeys(("train", "validation", "test"), PART)).encode()}
FILES = TABLES | PARTS


@dataclass
class Hub:
    """What was asked of it. It knows the data set lab/open, and lab/gated for who has the token."""

    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    down: bool = False

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(f"{method} {path}")
        repository, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self.down:
            return 503, {}, b""
        if repository == "lab/gated" and token != "Bearer hf_mine":
            return (403 if token else 401), GATED, b""
        if repository not in ("lab/open", "lab/gated"):
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if name not in FILES:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        digest = hashlib.sha1(FILES[name]).hexdigest()
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}, FILES[name]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(self.command, self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 (as http.server wants it)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    at(hub.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub
    server.shutdown()
    server.server_close()


def at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does it, which is read at import."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def address(name: str, repository: str = "lab/open", revision: str = f"@{COMMIT}") -> str:
    return f"hf://datasets/{repository}{revision}/{name}"


def table(path: str, **settings: Any) -> Split:
    option = OmegaConf.load(CONF / "dataset" / "table.yaml")
    return instantiate(OmegaConf.merge(option, {"path": path, **settings})).load()


@pytest.mark.parametrize("name", TABLES)
def test_every_format_is_read_off_the_hub_once(hub: Hub, name: str) -> None:
    assert texts(table(address(name)).test.harmful) == PROMPTS
    asked = len(hub.asked)
    assert any(one == f"GET /datasets/lab/open/resolve/{COMMIT}/{name}" for one in hub.asked)
    hub.down = True
    assert texts(table(address(name)).test.harmful) == PROMPTS
    assert len(hub.asked) == asked


def test_what_may_change_is_told_with_the_commit(hub: Hub, sentence: Said) -> None:
    for revision in ("", "@main"):
        said = sentence(lambda revision=revision: table(address("data/a.jsonl", revision=revision)))
        assert f"write {address('data/a.jsonl')}, which is how it stands now" in said
    assert not any(one.startswith("GET") for one in hub.asked)


def test_a_gated_set_is_read_with_the_token_of_the_user(
    hub: Hub, sentence: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = address("a.csv", "lab/gated")
    for token in (None, "hf_other"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        said = sentence(lambda: table(gated))
        assert f"is gated; ask for access at {hub.url}/datasets/lab/gated and run `hf auth login`" in said
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert texts(table(gated).test.harmful) == PROMPTS


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (address("a.csv", "lab/nowhere"), "no data set lab/nowhere; correct the name, or run `hf auth login`"),
        (address("b.csv"), f"lab/open has no file b.csv at {COMMIT}"),
        (address("a.csv", revision="@v9"), "lab/open has no revision v9"),
        ("hf://lab/open/a.csv", "names no file of a data set; write hf://datasets/ORG/NAME@COMMIT/FILE"),
        (f"hf://datasets/lab/open@{COMMIT}", "names no file of a data set"),
        ("hf://", "is no address on the hub"),
        ("hf://datasets/lab//a.csv", "is no address on the hub"),
    ],
)
def test_what_the_hub_has_not_is_one_sentence(hub: Hub, sentence: Said, wrong: str, told: str) -> None:
    assert told in sentence(lambda: table(wrong))


def test_a_hub_that_is_away_or_forbidden_is_one_sentence(
    hub: Hub, sentence: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # before it tries again
    assert "get the file elsewhere and pass dataset.path=FILE" in sentence(lambda: table(address("a.csv")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not cached and HF_HUB_OFFLINE forbids to fetch it; get" in sentence(lambda: table(address("a.csv")))
    assert not hub.asked


def test_what_is_too_large_is_not_fetched(hub: Hub, sentence: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 10)
    assert "larger than 0 MiB" in sentence(lambda: table(address("a.csv")))
    assert not any(one.startswith("GET") for one in hub.asked)


def test_prompts_in_parts_are_read_off_the_hub_and_a_table_is_told(hub: Hub, sentence: Said) -> None:
    assert texts(File(template="chat", path=address("parts.json")).load().test.harmful) == ["one"]
    assert "dataset=table takes" in sentence(lambda: File(template="chat", path=address("a.csv")).load())


# Checksums


def test_a_file_is_held_to_the_checksum_that_its_address_gives(hub: Hub, tmp_path: Path, sentence: Said) -> None:
    right = hashlib.sha256(FILES["a.csv"]).hexdigest()
    (tmp_path / "a.csv").write_bytes(FILES["a.csv"])
    for source in (address("a.csv"), str(tmp_path / "a.csv")):
        assert texts(table(f"{source}#sha256={right}").test.harmful) == PROMPTS
        said = sentence(lambda source=source: table(f"{source}#sha256={'0' * 64}"))
        assert f"has the sha256 {right}, not 000" in said
        assert "ends with no checksum" in sentence(lambda source=source: table(f"{source}#sha256=12"))
    assert (tmp_path / "a.csv").exists()
    assert texts(table(address("a.csv")).test.harmful) == PROMPTS


def test_a_damaged_download_is_not_kept(tmp_path: Path, sentence: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "cached_assets_path", lambda *_: tmp_path)
    whole = b"one\ntwo\n"
    content = iter([whole[:5], whole])
    monkeypatch.setattr(sources, "urlopen", lambda address, timeout: io.BytesIO(next(content)))
    pinned = f"https://x.org/m.txt#sha256={hashlib.sha256(whole).hexdigest()}"
    assert "it is another file, or was damaged" in sentence(lambda: table(pinned))
    assert list(tmp_path.iterdir()) == []
    assert texts(table(pinned).test.harmful) == ["one", "two"]


def test_the_same_file_is_the_same_data_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(FILES["a.csv"])
    checksum = f"#sha256={hashlib.sha256(FILES['a.csv']).hexdigest()}"
    digests = {
        data_digest({"path": source})
        for source in (str(tmp_path / "a.csv"), f"https://x.org/a.csv{checksum}", f"{address('a.csv')}{checksum}")
    }
    assert len(digests) == 1
    assert data_digest({"path": "https://x.org/a.csv"}) not in digests


def test_what_is_no_parquet_is_told(tmp_path: Path, sentence: Said) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    assert "a.parquet is not Parquet (" in sentence(lambda: table(str(tmp_path / "a.parquet")))
    (tmp_path / "b.parquet").write_bytes(parquet([{"prompt": 3}]))
    with pytest.raises(InputError, match="row 1, has 3 as its 'prompt'; write a text there"):
        table(str(tmp_path / "b.parquet"))
