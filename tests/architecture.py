"""The import graph of the house: python -m tests.architecture

Rooms are the packages and modules right below `rcm`. Prints rooms by floor with what each takes from, then how many
rooms, floors and arrows there are, which arrows run up, and which circles there are, between rooms and between files.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the bottom; rooms on one line do not know each other. DESIGN: data flows one way, and so do imports.
FLOORS = (
    ("control_groups", "errors", "packaged", "settings", "stats"),
    ("record",),
    ("models", "prompts", "tracking", "comparison", "formats"),
    ("execution", "report"),
    ("judges", "directions", "patching"),
    ("checks", "circuits", "steering"),
    ("transplant",),
    ("methods",),
    ("running",),
    ("api", "launch"),
)
Graph = Mapping[str, set[str]]


def files() -> dict[str, Path]:
    """Every module of the house by its name."""
    paths = sorted((ROOT / "rcm").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None, path
            assert not node.level, f"{path}: an import that is relative hides where it leads"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in names]
        yield from names


def between_files() -> dict[str, set[str]]:
    """For each of our modules, which of our modules it imports."""
    modules = files()
    return {name: {one for one in imported(path, modules) if one in modules} - {name} for name, path in modules.items()}


def foreign(room: str) -> set[str]:
    """The packages of others that the files of a room import."""
    modules = files()
    own = [path for name, path in modules.items() if room_of(name) == room]
    return {name.partition(".")[0] for path in own for name in imported(path, modules)} - {"rcm"}


def room_of(module: str) -> str:
    """Which room a module lies in; '' for `rcm` itself, which is empty."""
    return "".join(module.split(".")[1:2])


def between_rooms() -> dict[str, set[str]]:
    """For each room, which rooms it takes from."""
    graph: dict[str, set[str]] = {}
    for name, others in between_files().items():
        graph.setdefault(room_of(name), set()).update(map(room_of, others))
    return {room: others - {room, ""} for room, others in graph.items() if room}


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Arrows that do not lead to a lower floor; also those of rooms that have no floor."""
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    return [(a, b) for a, others in graph.items() for b in sorted(others) if not floor.get(a, -1) > floor.get(b, 99)]


def circle(graph: Graph) -> list[str]:
    """Nodes that import each other in turn; empty where none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    graph = between_rooms()
    for height, rooms in reversed(list(enumerate(FLOORS, start=1))):
        for room in rooms:
            print(f"floor {height:2}  {room:11} <- {', '.join(sorted(graph[room])) or 'nothing of ours'}")
    arrows, up = sum(map(len, graph.values())), upward(graph)
    print(f"{len(graph)} rooms, {len(FLOORS)} floors, {arrows} arrows; upward: {up or 'none'}")
    print(f"circles between rooms: {circle(graph) or 'none'}; between files: {circle(between_files()) or 'none'}")
    return 1 if up or circle(graph) or circle(between_files()) else 0


if __name__ == "__main__":
    sys.exit(main())
