"""As much of GraphQL as W&B's client speaks: a query is parsed, and picks fields from nested dicts.

A resolver is a function in the place of a value; it gets the field's arguments. A field that nobody knows is null, so
that a new client's new fields need nothing here.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(
    r'"""(?:.|\n)*?"""|"(?:\\.|[^"\\])*"|\.\.\.|[A-Za-z_]\w*|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[{}()\[\]:$!=@|&]'
)
Tree = dict[str, Any]


@dataclass
class Variable:
    name: str


@dataclass
class Field:
    alias: str
    name: str
    arguments: Tree
    directives: list[tuple[str, Tree]]
    selection: "Selection | None"


@dataclass
class Fragment:
    """`...Name` or `... on Type {}`; a named one is looked up when it is needed."""

    name: str | None
    condition: str | None
    directives: list[tuple[str, Tree]]
    selection: "Selection"


Selection = list[Field | Fragment]


class Query:
    def __init__(self, text: str) -> None:
        self.tokens = TOKEN.findall(re.sub(r"#[^\n]*", "", text))
        self.place = 0
        self.fragments: dict[str, tuple[str, Selection]] = {}
        self.name: str | None = None
        self.selection: Selection = []
        while self.place < len(self.tokens):
            self._definition()

    @property
    def roots(self) -> list[str]:
        return [field.name for field in self.selection if isinstance(field, Field)]

    def _definition(self) -> None:
        if self._peek() == "fragment":
            _, name, _, condition = (self._next() for _ in range(4))
            self._directives()
            self.fragments[name] = (condition, self._selection())
            return
        if self._peek() != "{":
            self._next()
            if self._peek() not in "{(@":
                self.name = self._next()
            if self._peek() == "(":
                self._skip_parentheses()
        self._directives()
        self.selection = self._selection()

    def _peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def _next(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1]

    def _took(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self.place += 1
        return True

    def _skip_parentheses(self) -> None:
        depth = 0
        while True:
            token = self._next()
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return

    def _directives(self) -> list[tuple[str, Tree]]:
        found = []
        while self._took("@"):
            found.append((self._next(), self._arguments()))
        return found

    def _arguments(self) -> Tree:
        return dict(self._pairs(")")) if self._took("(") else {}

    def _pairs(self, end: str) -> Iterator[tuple[str, Any]]:
        while not self._took(end):
            key = self._next()
            self._next()  # the colon
            yield key, self._value()

    def _value(self) -> Any:
        token = self._next()
        match token:
            case "$":
                return Variable(self._next())
            case "[":
                values = []
                while not self._took("]"):
                    values.append(self._value())
                return values
            case "{":
                return dict(self._pairs("}"))
            case _ if token.startswith('"""'):
                return token[3:-3]
            case _ if token[0] in '"-0123456789' or token in ("true", "false", "null"):
                return json.loads(token)
            case _:
                return token  # a member of an enumeration

    def _selection(self) -> Selection:
        self._next()
        found: Selection = []
        while not self._took("}"):
            found.append(self._fragment() if self._took("...") else self._field())
        return found

    def _fragment(self) -> Fragment:
        if self._peek() not in ("on", "{", "@"):
            return Fragment(self._next(), None, self._directives(), [])
        condition = self._next() if self._took("on") else None
        return Fragment(None, condition, self._directives(), self._selection())

    def _field(self) -> Field:
        alias = name = self._next()
        if self._took(":"):
            name = self._next()
        arguments, directives = self._arguments(), self._directives()
        return Field(alias, name, arguments, directives, self._selection() if self._peek() == "{" else None)

    def answer(self, roots: Tree, variables: Tree) -> Tree:
        return _Answer(self.fragments, variables).of(self.selection, roots)


@dataclass
class _Answer:
    fragments: dict[str, tuple[str, Selection]]
    variables: Tree

    def of(self, selection: Selection, value: Any) -> Any:
        if isinstance(value, list):
            return [self.of(selection, part) for part in value]
        if value is None:
            return None
        found: Tree = {}
        for part in selection:
            if not self._wanted(part.directives):
                continue
            for key, answer in (self._field if isinstance(part, Field) else self._fragment)(part, value):
                both = isinstance(answer, dict) and isinstance(found.get(key), dict)
                found[key] = found[key] | answer if both else answer
        return found

    def _field(self, field: Field, value: Tree) -> Iterator[tuple[str, Any]]:
        answer: Any = value.get(field.name)
        if isinstance(answer, Callable):
            answer = answer(**self._bound(field.arguments))
        yield field.alias, answer if field.selection is None else self.of(field.selection, answer)

    def _fragment(self, fragment: Fragment, value: Tree) -> Iterator[tuple[str, Any]]:
        condition, selection = fragment.condition, fragment.selection
        if fragment.name is not None:
            condition, selection = self.fragments[fragment.name]
        if condition in (None, value.get("__typename", condition), *value.get("__implements", ())):
            yield from self.of(selection, value).items()

    def _bound(self, value: Any) -> Any:
        match value:
            case Variable(name=name):
                return self.variables.get(name)
            case list():
                return [self._bound(part) for part in value]
            case dict():
                return {key: self._bound(part) for key, part in value.items()}
            case _:
                return value

    def _wanted(self, directives: list[tuple[str, Tree]]) -> bool:
        return all(bool(self._bound(arguments["if"])) == (name == "include") for name, arguments in directives)
