"""Public sets of prompts, each described by one YAML file; none is copied into this project."""

import random
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import PositiveInt

from rcm.errors import InputError
from rcm.prompts.division import Item, divide
from rcm.prompts.pairs import OWN, Pairs
from rcm.prompts.sources import Row, cell, rows
from rcm.prompts.split import Dataset, Part, Prompt, Split, checked, first

Prompts = tuple[Prompt, ...]


class Parts(NamedTuple):
    """The prompts of one class, harmful or harmless."""

    train: Prompts
    validation: Prompts
    test: Prompts


class Benchmark(Dataset):
    """One file of harmful prompts, or of both classes.

    `path`: a .csv, .json, .jsonl, .parquet or .txt file, or its address (`rcm.prompts.sources`). `prompt`, `category`:
    columns (category may be null; the lines of a .txt file are its column `prompt`). `where`: the rows that are meant,
    as {column: value}.
    `harmless`: `pairs` takes the harmless prompts of this project's own pairs, each part from the part of the same
    name; a path or address takes those of another file with the same columns; {column: value} takes such rows of the
    same file, which are then reported as lookalikes too.
    `train_from`: `pairs` fits and chooses on our own pairs, so that the whole benchmark is unseen test data; `self`
    divides the benchmark by `rcm.prompts.division`.
    `train`, `validation`, `test`: how many harmful prompts, and at most how many harmless; null is all of the part.
    """

    path: str
    prompt: str
    category: str | None
    where: Mapping[str, str]
    harmless: str | Mapping[str, str]
    train_from: Literal["pairs", "self"]
    train: PositiveInt | None
    validation: PositiveInt | None
    test: PositiveInt | None
    seed: int

    def load(self) -> Split:
        own = self._own_pairs()
        own_harmful = Parts(own.train.harmful, own.validation.harmful, own.test.harmful)
        own_harmless = Parts(own.train.harmless, own.validation.harmless, own.test.harmless)
        harmful = self._parts(self._prompts(self.path, "path", self.where), own_harmful)
        harmless = own_harmless if self.harmless == "pairs" else self._parts(self._safe_prompts(), own_harmless)
        test = self._part(harmful.test, harmless.test, self.test, "test")
        split = Split(
            train=self._part(harmful.train, harmless.train, self.train, "train"),
            validation=self._part(harmful.validation, harmless.validation, self.validation, "validation"),
            test=test,
            template=self.template,
            paired=False,
            lookalike=self._lookalikes(own, test),
        )
        return checked(split, self.path)

    def _own_pairs(self) -> Split:
        size = dict.fromkeys(("train", "validation", "test"))
        return Pairs(template=self.template, seed=self.seed, **OWN, **size).load()

    def _part(self, harmful: Prompts, harmless: Prompts, n: int | None, size: str) -> Part:
        source = "dataset.train_from=pairs" if self.train_from == "pairs" and size != "test" else self.path
        return Part(first(harmful, n, size, source), harmless[:n])

    def _lookalikes(self, own: Split, test: Part) -> Prompts:
        if self.harmless == "pairs":
            return own.lookalike
        return test.harmless if isinstance(self.harmless, Mapping) else ()

    def _safe_prompts(self) -> Prompts:
        if isinstance(self.harmless, str):
            return self._prompts(self.harmless, "harmless", {})
        return self._prompts(self.path, "path", self.harmless)

    def _prompts(self, source: str, setting: str, where: Mapping[str, str]) -> Prompts:
        """The prompts of the rows that are meant, each text once."""
        prompts: dict[str, Prompt] = {}
        for number, row in enumerate(rows(source, f"dataset.{setting}=FILE"), start=1):
            place = f"{source}, row {number},"
            if all(cell(row, column, place) == value for column, value in where.items()):
                prompt = Prompt(cell(row, self.prompt, place), self._category(row, place))
                prompts.setdefault(" ".join(prompt.text.casefold().split()), prompt)
        if not prompts:
            raise InputError(f"{source} has no row with {dict(where)}; correct dataset.where or dataset.{setting}.")
        return tuple(prompts.values())

    def _category(self, row: Row, place: str) -> str:
        return "" if self.category is None or row.get(self.category, "") is None else cell(row, self.category, place)

    def _parts(self, prompts: Prompts, own: Parts) -> Parts:
        if self.train_from == "pairs":
            return Parts(own.train, own.validation, prompts)
        division = divide([Item(prompt.category, (prompt.text,)) for prompt in prompts], self.seed)
        return Parts(*(tuple(prompts[number] for number in numbers) for numbers in division))


class Published(Dataset):
    """Splits as they were published: `{harmful,harmless}_{train,val,test}.json` in one folder or under one address.

    A file is a list of `{"instruction", "category"}`. `train`, `validation`, `test`: how many prompts of each class,
    drawn by `seed`; null is all, in order. The draws come in the order of the code of Arditi et al. (2024,
    `pipeline/run_pipeline.py`), so that with the whole files, sizes 128, 32, 100 and seed 42 give the prompts that it
    fits and chooses on, before its filters, and its harmless test prompts.
    """

    path: str
    train: PositiveInt | None
    validation: PositiveInt | None
    test: PositiveInt | None
    seed: int

    def load(self) -> Split:
        dice = random.Random(self.seed)
        harmful_train = self._drawn("harmful_train", "train", self.train, dice)
        harmless_train = self._drawn("harmless_train", "train", self.train, dice)
        harmful_validation = self._drawn("harmful_val", "validation", self.validation, dice)
        harmless_validation = self._drawn("harmless_val", "validation", self.validation, dice)
        harmless_test = self._drawn("harmless_test", "test", self.test, dice)
        harmful_test = self._drawn("harmful_test", "test", self.test, dice)
        split = Split(
            train=Part(harmful_train, harmless_train),
            validation=Part(harmful_validation, harmless_validation),
            test=Part(harmful_test, harmless_test),
            template=self.template,
            paired=False,
        )
        return checked(split, self.path)

    def _drawn(self, name: str, size: str, n: int | None, dice: random.Random) -> Prompts:
        source = f"{self.path.rstrip('/')}/{name}.json"
        prompts = tuple(
            Prompt(cell(row, "instruction", f"{source}[{number}]"), str(row.get("category") or ""))
            for number, row in enumerate(rows(source, "dataset.path=FOLDER"))
        )
        return prompts if n is None else tuple(dice.sample(prompts, len(first(prompts, n, size, source))))
