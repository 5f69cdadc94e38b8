"""What a method found: its results by their names, and what it hands to the methods after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar

from rcm.api.models import Model
from rcm.api.shown import DRAWN, Conclusion, Figure, Picture, Shown, row_of, shown, table
from rcm.errors import InputError
from rcm.methods import Study
from rcm.record.results import Heatmap, Outcome, Result, Scalar
from rcm.report.svg import element


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """`results`: every result by its whole name (`direction/separation`), as a run stores it. Each is an attribute,
    too, without the name of the method: `direction.separation`. `finding`: what later methods take of it, or None.
    `before`: the findings that it builds on, by the method. `study`: the prompts, the judge and the seed that it is
    of. `map_first`: the map to show where none is named, if there is one to be preferred."""

    map_first: ClassVar[str] = ""

    method: str
    model: Model
    study: Study
    results: Mapping[str, Result]
    finding: Any
    before: Mapping[str, "Finding"] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # which notebooks ask for, and copies before there is anything
            raise AttributeError(name)
        if (found := self.results.get(f"{self.method}/{name}")) is not None:
            return shown(found, self._why)
        raise AttributeError(self._missing(name))

    def __getitem__(self, name: str) -> Shown:
        """A result by its name, whole or without the method's: some names are no names in Python."""
        for whole in (name, f"{self.method}/{name}"):
            if whole in self.results:
                return shown(self.results[whole], self._why)
        raise KeyError(self._missing(name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.names})

    @property
    def names(self) -> list[str]:
        """Of all results, in the order in which they came."""
        return [name.removeprefix(f"{self.method}/") for name in self.results]

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its name."""
        found = {name: shown(one, self._why) for name, one in self._by_name.items() if isinstance(one, Scalar)}
        return {name: one for name, one in found.items() if isinstance(one, Figure)}

    @property
    def pictures(self) -> dict[str, Picture]:
        """Every map, curve, cloud of points and circuit by its name."""
        found = {name: shown(one) for name, one in self._by_name.items() if isinstance(one, DRAWN)}
        return {name: one for name, one in found.items() if isinstance(one, Picture)}

    def plot(self, name: str | None = None) -> Picture:
        """A picture by its name; the first if none is named. Raises InputError where there is none."""
        return self._picture(name, self.pictures)

    def heatmap(self, name: str | None = None) -> Picture:
        """A map by its name; the one to look at first if none is named. Raises InputError where there is none."""
        maps = {key: one for key, one in self.pictures.items() if isinstance(one.result, Heatmap)}
        return self._picture(name or (self.map_first if self.map_first in maps else None), maps)

    def __repr__(self) -> str:
        outcome = self._by_name.get("outcome")
        concluded = [outcome.value] if isinstance(outcome, Outcome) else []
        return f"<{self.method} in {self.model.loaded.identity['name']}: {', '.join([*concluded, *self._in_short()])}>"

    def _in_short(self) -> list[str]:
        """What else stands in the one line."""
        figures = [one for one in self.figures.values() if one.result.target is not None]
        return [repr(one).partition(" (")[0] for one in figures]

    def _repr_html_(self) -> str:
        outcomes = [one for one in (shown(result) for result in self._by_name.values()) if isinstance(one, Conclusion)]
        said = [element("p", element("b", f"{one.label}: {one.value}"), f". {one.because}") for one in outcomes]
        rows = table([row_of(one) for one in self.figures.values()]) if self.figures else ""
        others = [name for name, one in self._by_name.items() if not isinstance(one, Scalar | Outcome)]
        more = element("p", f"Besides: {', '.join(others)}.") if others else ""
        return "".join(map(str, (element("h4", repr(self)[1:-1]), *said, rows, more)))

    @cached_property
    def _by_name(self) -> dict[str, Result]:
        return dict(zip(self.names, self.results.values(), strict=True))

    @property
    def _why(self) -> str:
        """Why it stopped before its figures; empty where it did not."""
        outcome = self.results.get(f"{self.method}/outcome")
        return outcome.because if isinstance(outcome, Outcome) and not outcome.complete else ""

    def _picture(self, name: str | None, found: Mapping[str, Picture]) -> Picture:
        if name is None and found:
            return next(iter(found.values()))
        if name is not None and name in found:
            return found[name]
        asked = f"{self.method} has no such picture {name!r}" if name else f"{self.method} has no such picture"
        raise InputError(f"{asked}; it has {', '.join(found) or f'none ({self._why or self.outcome.because})'}.")

    def _missing(self, name: str) -> str:
        known = [*self.names, *(one for one in dir(type(self)) if not one.startswith("_"))]
        close = get_close_matches(name, known, n=1)
        mean = f"; did you mean {close[0]!r}?" if close else ""
        why = f"; it stopped before it ({self._why.rstrip('.')})" if self._why else ""
        return f"{self.method} has no {name!r}{mean}{why}; it has {', '.join(self.names)}"
