"""No outcome says a word that its method does not explain."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rcm.comparison.rule import RULES
from rcm.comparison.verdict import WORDS as VERDICTS
from rcm.errors import InputError
from rcm.record.encoding import decoded, encoded
from rcm.record.results import Outcome, Word
from tests.architecture import files

# Those that explain themselves: which engine, how many targets are met, at which place (no result of its own).
THEMSELVES = ("engine", "SUMMARY", "place")


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef))


def outcomes(tree: ast.AST) -> list[ast.Call]:
    """Every call that makes an outcome which concludes something."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Outcome"]
    return [call for call in calls if not any(name in ast.unparse(call.args[0]) for name in THEMSELVES)]


def constants(expression: ast.expr) -> Iterator[str]:
    """The names of constants that an expression may come to, of a tuple the first part."""
    match expression:
        case ast.Name(id=name) if name.isupper():
            yield name
        case ast.Tuple(elts=[first, *_]):
            yield from constants(first)
        case ast.IfExp(body=body, orelse=other):
            yield from constants(body)
            yield from constants(other)
        case ast.Dict(values=values):
            for value in values:
                yield from constants(value)


def said(path: Path) -> set[str]:
    """The constants that a module gives outcomes as words: directly, by a name, or by a function of its own."""
    found: set[str] = set()
    for function in functions(path):
        for node in ast.walk(function):
            match node:
                case ast.Return(value=ast.expr() as value):
                    found |= set(constants(value))
                case ast.Assign(targets=[target], value=value) if ast.unparse(target).startswith(("word", "value")):
                    found |= set(constants(value))
                case ast.Call(args=[_, second, *_]) if node in outcomes(function):
                    found |= set(constants(second))
                case ast.Call(func=ast.Name(id="found" | "_outcome"), args=[first, *_]):
                    found |= set(constants(first))
                case _:
                    pass
    return found


MODULES = {name: path for name, path in files().items() if outcomes(ast.parse(path.read_text(encoding="utf-8")))}


@pytest.mark.parametrize("name", MODULES)
def test_every_word_is_explained(name: str) -> None:
    module = importlib.import_module(name)
    explained: set[str] = set()
    for call in outcomes(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        (words,) = (keyword.value for keyword in call.keywords if keyword.arg == "words")
        if (
            isinstance(words, ast.Name) and words.id.isupper()
        ):  # else they are those of another method's outcome, whose word it repeats
            explained |= set(getattr(module, words.id))
    values = {value for one in said(MODULES[name]) if isinstance(value := getattr(module, one), str)}
    words = {value for value in values if value.replace("_", "").isalpha() and value.islower()}
    assert words <= explained


def test_every_verdict_is_explained() -> None:
    assert set(VERDICTS) == set(RULES)
    assert all(word.means and word.then for word in VERDICTS.values())


def test_a_word_that_is_not_explained_is_refused() -> None:
    words = {"yes": Word("it is so", "Go on.")}
    with pytest.raises(InputError, match=r"The outcome m/outcome is 'no', which its words do not explain \(yes\)"):
        Outcome("m/outcome", "no", "", words=words)
    assert Outcome("m/outcome", "no", "").means == ""
    outcome = Outcome("m/outcome", "yes", "", words=words)
    assert outcome.means == "it is so"
    assert decoded(encoded(outcome)) == outcome
