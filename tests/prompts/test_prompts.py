"""Prompts: our own data are fit for use, parts do not leak into one another, errors say where and what to do."""

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rcm.errors import InputError
from rcm.packaged import located
from rcm.prompts import Part, Prompt, Split, sources, texts
from rcm.prompts.division import NEAR, Item, content_words, divide, near_duplicates
from rcm.prompts.file import File
from rcm.prompts.sources import rows

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT.parent / "shared/data/prompts"
FILES = {
    "advbench": "advbench.csv",
    "arditi": "",
    "harmbench": "harmbench_test.csv",
    "jailbreakbench": "jailbreakbench.csv",
    "malicious_instruct": "malicious_instruct.txt",
    "strongreject": "strongreject.csv",
    "xstest": "xstest_prompts.csv",
}
needs_public_data = pytest.mark.skipif(not PUBLIC.is_dir(), reason=f"{PUBLIC} is not there")


def load(name: str, **overrides: Any) -> Split:
    """What `dataset=name dataset.key=value ...` gives."""
    config = OmegaConf.load(ROOT / f"conf/dataset/{name}.yaml")
    return instantiate(OmegaConf.merge(config, overrides)).load()


def load_public(name: str, **overrides: Any) -> Split:
    return load(name, path=str(PUBLIC / FILES[name]), **overrides)


def parts(split: Split) -> list[Part]:
    return [split.train, split.validation, split.test]


def counts(split: Split) -> list[tuple[int, int]]:
    return [(len(part.harmful), len(part.harmless)) for part in parts(split)]


def must_fail(action: Callable[[], object], *said: str) -> None:
    """`action` raises an InputError of one sentence on one line, in which everything in `said` stands."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert re.fullmatch(r"(?!.*\. ).*\.", message)
    assert [words for words in said if words not in message] == []


def shared_texts(split: Split) -> set[str]:
    """Texts that stand in two parts, or are harmful here and harmless there."""
    places = [set(texts(prompts)) for part in parts(split) for prompts in part]
    return set[str]().union(*(one & other for one, other in combinations(places, 2)))


# Our own pairs


WHOLE = {"train": None, "validation": None, "test": None}


def test_our_data_are_1440_pairs_in_12_categories_and_60_lookalikes():
    split = load("pairs", **WHOLE)
    assert counts(split) == [(864, 864), (288, 288), (288, 288)]
    assert split.paired
    assert split.template == "chat"
    per_category = Counter(prompt.category for part in parts(split) for prompt in part.harmful)
    assert len(per_category) == 12
    assert set(per_category.values()) == {120}
    assert len(set(texts(split.lookalike))) == 60


def test_the_two_of_a_pair_share_category_and_length():
    for part in parts(load("pairs", **WHOLE)):
        for harmful, harmless in zip(*part, strict=True):
            assert harmful.category == harmless.category
            assert abs(len(harmful.text.split()) - len(harmless.text.split())) <= 3


def test_no_near_duplicates_within_our_data():
    split = load("pairs", **WHOLE)
    for side in range(2):
        words = [content_words(prompt.text) for part in parts(split) for prompt in part[side]]
        assert all(len(a & b) < NEAR * len(a | b) for a, b in combinations(words, 2))


def test_lookalikes_are_no_prompts_of_the_pairs():
    split = load("pairs", **WHOLE)
    known = {text for part in parts(split) for prompts in part for text in texts(prompts)}
    assert known.isdisjoint(texts(split.lookalike))


def test_lookalikes_to_learn_from_say_nearly_the_same_as_no_other_prompt() -> None:
    split = load("pairs", **WHOLE)
    learnt = [json.loads(line)["prompt"] for line in located("packaged:lookalike_train.jsonl").read_text().splitlines()]
    assert len(set(learnt)) == len(learnt) == 505
    others = [*texts(split.lookalike), *(text for part in parts(split) for side in part for text in texts(side))]
    learnt_words, words = ([content_words(text) for text in some] for some in (learnt, others))
    assert all(len(a & b) < NEAR * len(a | b) for a, b in product(learnt_words, words))


def test_every_part_holds_equally_many_of_each_category():
    for part, each in zip(parts(load("pairs", **WHOLE)), (72, 24, 24), strict=True):
        assert set(Counter(prompt.category for prompt in part.harmful).values()) == {each}


def test_the_division_depends_on_the_seed_alone():
    assert load("pairs") == load("pairs")
    assert set(load("pairs").test.harmful) != set(load("pairs", seed=1).test.harmful)


@pytest.mark.parametrize("size", [1, 5, 24, 50])
def test_smaller_sizes_take_the_beginning_and_keep_categories_even(size: int):
    small, whole = load("pairs", train=size, validation=size, test=size), load("pairs")
    for few, all_ in zip(parts(small), parts(whole), strict=True):
        assert few == Part(all_.harmful[:size], all_.harmless[:size])
        per_category = Counter(prompt.category for prompt in few.harmful)
        assert len(per_category) == min(size, 12)
        assert max(per_category.values()) - min(per_category.values()) <= 1


def test_asking_for_too_many_pairs_says_how_many_there_are():
    must_fail(lambda: load("pairs", validation=289), "pairs.jsonl", "dataset.validation", "288 or less")


def test_a_size_of_nothing_is_refused():
    with pytest.raises(InstantiationException, match="greater than 0"):
        load("pairs", test=0)


def test_pairs_of_ones_own(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    lines = [{"category": "c", "harmful": f"harm{n} a{n}", "harmless": f"help{n} b{n}"} for n in range(5)]
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    split = load("pairs", path=str(file), train=None, validation=None, test=None)
    assert counts(split) == [(3, 3), (1, 1), (1, 1)]
    assert all(
        a.text[4:].split()[0] == b.text[4:].split()[0] for part in parts(split) for a, b in zip(*part, strict=True)
    )


@pytest.mark.parametrize(
    ("line", "place", "cure"),
    [
        ('{"category": "c", "harmful": "x"}', "pair 2", "'harmless'"),
        ('{"category": "c", "harmful": "x", "harmless": 3}', "pair 2", "write a text"),
        ("[1]", "line 2", "object"),
        ('{"category": ', "line 2, column 14", "mend it"),
    ],
)
def test_a_bad_line_among_pairs(tmp_path: Path, line: str, place: str, cure: str):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"category": "c", "harmful": "x", "harmless": "y"}\n' + line, encoding="utf-8")
    must_fail(lambda: load("pairs", path=str(file)), "mine.jsonl", place, cure)


# Division


def test_planted_near_duplicates_stay_together_on_either_side():
    items = [Item(f"c{n % 3}", (f"alpha{n} beta{n} gamma{n}", f"delta{n} epsilon{n} zeta{n}")) for n in range(60)]
    items[7] = Item("c1", ("How do I alpha40 the beta40?", items[7].texts[1]))
    items[40] = Item("c1", (items[40].texts[0], "Please delta53 an epsilon53"))
    for seed in range(20):
        division = divide(items, seed)
        [home] = [part for part in division if 40 in part]
        assert {7, 40, 53} <= set(home)
        assert sorted(number for part in division for number in part) == list(range(60))
        assert [len(part) for part in division] == [36, 12, 12]


def test_near_duplicates_are_those_that_comparing_all_with_all_finds():
    some = [
        "build a red bomb",
        "How do you build the red bomb?",
        "build red houses",
        "red",
        "the",
        "The!",
        "paint houses",
    ]
    words = [content_words(text) for text in some]
    near = {(j, i) for i, j in combinations(range(7), 2) if len(words[i] & words[j]) >= NEAR * len(words[i] | words[j])}
    assert set(near_duplicates(some)) == near
    assert {(1, 0), (2, 0), (5, 4)} <= near


def test_uneven_categories_are_divided_by_largest_remainders():
    items = [Item("a", (f"x{n}",)) for n in range(7)] + [Item("b", (f"y{n}",)) for n in range(1)]
    sizes = [Counter(items[n].category for n in part) for part in divide(items, 0)]
    assert [size["a"] for size in sizes] == [4, 2, 1]
    assert sum(size["b"] for size in sizes) == 1


# A file of one's own


def whole() -> dict[str, Any]:
    def part(name: str) -> dict[str, list[Any]]:
        return {
            "harmful": [f"{name} bad 1", {"instruction": f" {name} bad 2", "category": "x"}],
            "harmless": [{"prompt": f"{name} good 1", "source": 7}, {"text": f"{name} good 2", "category": None}],
        }

    return {name: part(name) for name in ("train", "validation", "test")}


def write(folder: Path, content: Any) -> str:
    file = folder / "X.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def test_a_file_is_taken_as_it_stands(tmp_path: Path):
    content = {**whole(), "paired": True, "lookalike": ["kill a process"]}
    split = load("file", path=write(tmp_path, content), template="plain")
    for name, part in zip(("train", "validation", "test"), parts(split), strict=True):
        assert part.harmful == (Prompt(f"{name} bad 1", ""), Prompt(f" {name} bad 2", "x"))
        assert part.harmless == (Prompt(f"{name} good 1", ""), Prompt(f"{name} good 2", ""))
    assert (split.template, split.paired, texts(split.lookalike)) == ("plain", True, ["kill a process"])


def test_a_file_is_not_paired_unless_it_says_so(tmp_path: Path):
    assert not load("file", path=write(tmp_path, whole())).paired


def test_without_a_path_the_cure_is_to_give_one():
    must_fail(lambda: load("file"), "dataset.path=X.json")


def test_a_file_that_is_not_there(tmp_path: Path):
    must_fail(lambda: load("file", path=str(tmp_path / "X.json")), "X.json", "dataset.path=")


def with_(*keys: Any, value: Any) -> dict[str, Any]:
    """A good file's content with one value changed."""
    content: Any = whole()
    target = content
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "place", "cure"),
    [
        ('{"train": \n{,', "line 2, column 2", "mend it"),
        ([], "is a list", "write an object with train, validation, test"),
        ({"train": whole()["train"]}, "no field 'validation'", "add it"),
        (with_("test", value={"harmful": ["x"]}), "test has no field 'harmless'", "add it"),
        (with_("pared", value=True), "'pared'", "paired"),
        (with_("validation", value="x"), "validation is a text", "write an object"),
        (with_("validation", "harmless", value="x"), "validation.harmless is a text", "write a list"),
        (with_("validation", "harmless", value=[]), "validation.harmless empty", "add some"),
        (with_("validation", "harmless", 1, value=7), "validation.harmless[1]", "write a text"),
        (
            with_("validation", "harmless", 1, value={"goal": "x"}),
            "validation.harmless[1]",
            "prompt, instruction, text",
        ),
        (with_("validation", "harmless", 1, value={"prompt": None}), "validation.harmless[1]", "write a text"),
        (with_("validation", "harmless", 1, value={"prompt": "x", "text": "y"}), "validation.harmless[1]", "one of"),
        (with_("train", "harmful", 1, "category", value=3), "train.harmful[1].category", "leave it out"),
        (with_("train", "harmful", 0, value=" "), "train.harmful[0]", "fill or remove it"),
        (with_("lookalike", value=[""]), "lookalike[0]", "fill or remove it"),
        (with_("paired", value=1), "paired is a number", "write true"),
        (
            {**with_("test", "harmful", value=["x"]), "paired": True},
            "test has 1 harmful and 2 harmless",
            "drop `paired`",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_place_and_cure(tmp_path: Path, content: Any, place: str, cure: str):
    path = write(tmp_path, content)
    must_fail(lambda: load("file", path=path), path, place, cure)


def test_a_file_that_is_not_text(tmp_path: Path):
    (tmp_path / "X.json").write_bytes(b"\xff\xfe\x00")
    must_fail(lambda: load("file", path=str(tmp_path / "X.json")), "X.json", "byte 0", "convert it")


def test_a_text_in_two_parts_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        load("file", path=write(tmp_path, with_("test", "harmful", 1, value="train bad 1")))
    assert "train.harmful" in caplog.text
    assert "test.harmful[1]" in caplog.text


# Public sets


@needs_public_data
@pytest.mark.parametrize(
    ("name", "test", "lookalikes"),
    [
        ("advbench", (520, 288), 60),
        ("harmbench", (159, 288), 60),
        ("jailbreakbench", (100, 288), 60),
        ("malicious_instruct", (100, 288), 60),
        ("strongreject", (313, 288), 60),
        ("xstest", (200, 250), 250),
    ],
)
def test_a_whole_benchmark_can_be_unseen_test_data(name: str, test: tuple[int, int], lookalikes: int):
    split, own = load_public(name, train_from="pairs", train=864, validation=96, test=None), load("pairs")
    assert (split.train, split.validation) == (own.train, own.validation)
    assert (counts(split)[2], len(split.lookalike)) == (test, lookalikes)
    assert not split.paired
    assert not shared_texts(split)
    fitted = [text for part in (split.train, split.validation) for prompts in part for text in texts(prompts)]
    assert set(texts(split.lookalike)).isdisjoint(fitted)


@needs_public_data
@pytest.mark.parametrize("name", ["advbench", "jailbreakbench", "malicious_instruct", "xstest"])
def test_a_benchmark_divided_does_not_leak(name: str):
    split = load_public(name, train_from="self", train=None, validation=None, test=None)
    words = [[content_words(prompt.text) for prompt in part.harmful] for part in parts(split)]
    for one, other in combinations(words, 2):
        assert all(len(a & b) < NEAR * len(a | b) for a, b in product(one, other))
    assert not shared_texts(split)
    assert len(split.train.harmful) == pytest.approx(0.6 * sum(n for n, _ in counts(split)), abs=1)


@needs_public_data
@pytest.mark.parametrize("name", FILES)
def test_every_public_set_loads_with_its_defaults(name: str):
    split = load_public(name)
    assert all(prompt.text for part in parts(split) for prompts in part for prompt in prompts)
    assert not shared_texts(split)


@needs_public_data
@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("advbench.csv", 520),
        ("harmbench_test.csv", 320),
        ("harmbench_val.csv", 80),
        ("jailbreakbench.csv", 100),
        ("malicious_instruct.txt", 100),
        ("strongreject.csv", 313),
        ("xstest_prompts.csv", 450),
        ("harmful_train.json", 260),
    ],
)
def test_every_row_is_read(name: str, n: int):
    assert len(sources.rows(str(PUBLIC / name), "")) == n


@needs_public_data
def test_asking_for_more_than_our_pairs_names_them_as_the_source():
    must_fail(lambda: load_public("jailbreakbench", train=865), "train_from=pairs has no 865")


@needs_public_data
def test_a_contrast_set_can_do_with_our_harmless_prompts():
    split = load_public("xstest", harmless="pairs", train_from="self", train=90, validation=30)
    assert counts(split) == [(90, 90), (30, 30), (40, 288)]
    assert split.lookalike == load("pairs").lookalike


@needs_public_data
def test_benign_prompts_of_another_file_can_be_the_harmless_ones(tmp_path: Path):
    benign = tmp_path / "benign.csv"
    benign.write_text("Goal,Category\nBake a cake,x\nbake  a Cake,x\nSing,\n", encoding="utf-8")
    split = load_public("jailbreakbench", harmless=str(benign))
    assert split.test.harmless == (Prompt("Bake a cake", "x"), Prompt("Sing", ""))
    assert not split.lookalike


@needs_public_data
def test_published_splits_are_whole_or_drawn():
    whole_split = load_public("arditi", train=None, validation=None, test=None)
    assert counts(whole_split) == [(260, 1000), (39, 300), (572, 300)]
    drawn = load_public("arditi")
    assert counts(drawn) == [(128, 128), (32, 32), (100, 100)]
    for few, all_ in zip(parts(drawn), parts(whole_split), strict=True):
        assert set(few.harmful) <= set(all_.harmful)
        assert set(few.harmless) <= set(all_.harmless)
    must_fail(lambda: load_public("arditi", validation=40), "harmful_val.json", "dataset.validation", "39 or less")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "prompt,kind\none,k\ntwo,k\n"),
        ("m.jsonl", '{"prompt": "one", "kind": "k"}\n\n{"prompt": "two", "kind": "k"}\n'),
        ("m.json", '["one", {"prompt": "two"}]'),
        ("m.txt", "one\r\n\r\n two \n"),
    ],
)
def test_formats_by_suffix(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert texts(load("malicious_instruct", path=str(tmp_path / name)).test.harmful) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "overrides", "place", "cure"),
    [
        ("m.csv", "goal\none\n", {}, "row 1", "goal"),
        ("m.csv", 'prompt\none\n""\n', {}, "test.harmful[1]", "remove"),
        ("m.csv", "prompt\none\n", {"where": {"prompt": "two"}}, "'prompt': 'two'", "dataset.where"),
        ("m.json", "{}", {}, "not a JSON list", "dataset=file"),
        ("m.xlsx", "", {}, "m.xlsx", "dataset.path=FILE"),
        ("m.txt", "one\n", {"test": 2}, "dataset.test", "1 or less"),
    ],
)
def test_what_is_wrong_in_a_benchmark_file(
    tmp_path: Path, name: str, content: str, overrides: dict[str, Any], place: str, cure: str
):
    (tmp_path / name).write_text(content, encoding="utf-8")
    must_fail(lambda: load("malicious_instruct", path=str(tmp_path / name), **overrides), name, place, cure)


def test_a_row_without_a_category_has_the_empty_one(tmp_path: Path):
    file = tmp_path / "m.csv"
    file.write_text("prompt,kind\none\ntwo,k\n", encoding="utf-8")
    split = load("malicious_instruct", path=str(file), category="kind")
    assert split.test.harmful == (Prompt("one", ""), Prompt("two", "k"))


# Addresses


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def folder(*_: str) -> Path:
        return tmp_path

    monkeypatch.setattr(sources, "cached_assets_path", folder)
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("name", FILES)
def test_offline_a_public_set_names_its_address_and_the_cure(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources.constants, "HF_HUB_CACHE", "nowhere")
    must_fail(lambda: load(name), "HF_HUB_OFFLINE", "://", "dataset.path=")


@pytest.mark.usefixtures("empty_cache")
def test_an_unreachable_address_names_the_cure(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(sources, "urlopen", fail)
    must_fail(lambda: load("advbench"), "advbench.csv", "no route", "dataset.path=FILE")


def test_an_address_is_fetched_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    fetched: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        fetched.append(address)
        return io.BytesIO(b"one\ntwo\n")

    monkeypatch.setattr(sources, "urlopen", answer)
    assert load("malicious_instruct") == load("malicious_instruct")
    assert len(fetched) == 1
    assert [file.name for file in empty_cache.iterdir()] == ["malicious_instruct.txt"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\n <!DOCTYPE html><title>Sign in</title>", "is a web page, not advbench.csv"),
        (b"x" * 1001, "larger than 0 MiB"),
    ],
)
def test_what_is_no_set_of_prompts_is_not_kept(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, told: str
):
    monkeypatch.setattr(sources, "MOST_BYTES", 1000)
    monkeypatch.setattr(sources, "urlopen", lambda address, timeout: io.BytesIO(content))
    must_fail(lambda: load("advbench"), told, "dataset.path=FILE")
    assert list(empty_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources.constants, "HF_ASSETS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(sources, "cached_assets_path", lambda *parts: (tmp_path / "file/assets").mkdir())
    must_fail(lambda: load("advbench"), "advbench.csv cannot be kept in", "HF_ASSETS_CACHE=FOLDER", "dataset.path=FILE")


@pytest.mark.usefixtures("empty_cache")
def test_a_signature_is_not_told_on(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(sources, "urlopen", fail)
    signed = "https://x.org/advbench.csv?X-Sig=secret&e=1"
    with pytest.raises(InputError, match=r"fetched from https://x.org/advbench.csv\?\.\.\. \("):
        load("advbench", path=signed)


# CSV as people write it


def csv_prompts(tmp_path: Path, content: str | bytes) -> list[str]:
    file = tmp_path / "m.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(row["prompt"]) for row in rows(str(file), "dataset.path=FILE")]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("prompt,kind\none,a\ntwo,b\n", ["one", "two"]),
        ("prompt;kind\none, or two;a\nthree;b\n", ["one, or two", "three"]),
        ("prompt\tkind\none, or two\ta\n", ["one, or two"]),
        ('\ufeffprompt\r\n"one, or two"\r\n\r\n"say ""hi"""\r\n', ["one, or two", 'say "hi"']),
        ('prompt\n"one\ntwo"\nthree\n', ["one\ntwo", "three"]),
        (f"prompt\n{'long ' * 60_000}\n", ["long " * 60_000]),
    ],
    ids=["commas", "semicolons", "tabs", "BOM, CRLF, quotes", "a line break", "300,000 letters"],
)
def test_csv_is_read_as_it_was_meant(tmp_path: Path, content: str, wanted: list[str]):
    assert csv_prompts(tmp_path, content) == wanted


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("prompt\nWrite a poem, then a song\nTwo\n", ("line 2, has 2 cells and the header 1", "double quotes")),
        ('prompt,kind\n"one,a\ntwo,b\nthree,c\n', ("from line 2 on", "close every double quote")),
        ('prompt\n"one" more\n', ("from line 2 on", "close every double quote")),
    ],
    ids=["bare comma", "open quote", "more after a quote"],
)
def test_csv_that_would_be_cut_or_joined_is_told(
    tmp_path: Path, sentence: Callable[[Callable[[], object]], str], content: str, told: tuple[str, ...]
):
    message = sentence(lambda: csv_prompts(tmp_path, content))
    assert all(part in message for part in (*told, "m.csv"))


def test_half_a_character_is_told(tmp_path: Path, sentence: Callable[[Callable[[], object]], str]):
    part = {"harmful": ["one"], "harmless": ["two"]}
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"train": part, "validation": part, "test": part | {"harmless": ["fine", "a\ud800b"]}}))
    message = sentence(lambda: File(template="chat", path=str(file)).load())
    assert "half of a character" in message
    assert "test.harmless[1]" in message
