"""How large the page of many runs is, how long it takes to make, and how fast it opens.

    python -m benchmarks.page runs                  # a folder of finished runs, such as the demo's
    python -m benchmarks.page runs --runs 200

The runs of the folder are copied under the names of other models and families until there are as many as asked for.
Opening is timed by a headless Chromium itself, from navigation on. Prints medians of several times and, as the last
line, JSON.
"""

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from rcm.record.identity import RECORD
from rcm.report import write
from tests.browser import browsing

LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
# The first paint may come after the end of loading.
PAINTED = """new Promise(told => new PerformanceObserver(list => {
    for (const one of list.getEntriesByName("first-contentful-paint")) told(one.startTime)
}).observe({type: "paint", buffered: true}))"""


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "runs"
        multiply(options.folder, folder, options.runs)
        measured = [making_and_opening(folder, Path(scratch)) for _ in range(options.times)]
        size = (Path(scratch) / "page" / "index.html").stat().st_size
    made, loaded, painted = (statistics.median(times) for times in zip(*measured, strict=True))
    print(f"{options.runs} runs: a page of {size / 1e6:.1f} MB, made in {made:.1f} s")
    print(f"  first paint {painted:.2f} s, loaded {loaded:.2f} s (medians of {options.times})")
    figures = {"bytes": size, "made": made, "painted": painted, "loaded": loaded}
    print(json.dumps({"runs": options.runs, **figures}))


def multiply(source: Path, folder: Path, runs: int) -> None:
    """Copies of the finished runs of a folder; each turn makes a family of its own."""
    stored = sorted(path.parent for path in source.glob(f"*/{RECORD}"))
    if not stored:
        raise SystemExit(f"{source} holds no runs; give a folder that does.")
    for number, path in zip(range(runs), itertools.cycle(stored), strict=False):
        turn = number // len(stored)
        copy = folder / f"{number:08x}"
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("wandb", "*.log", "activations.*"))
        record = json.loads((copy / RECORD).read_text())
        record["id"] = copy.name
        record["choices"]["model"] += f"-{turn}"
        record["config"]["model"]["family"] = f"family {turn}"
        (copy / RECORD).write_text(json.dumps(record))


def making_and_opening(folder: Path, scratch: Path) -> tuple[float, float, float]:
    """Seconds until the page is written, and those of `opening`."""
    start = time.perf_counter()
    page, _ = write(folder, scratch / "page")
    return time.perf_counter() - start, *opening(page, scratch)


def opening(page: Path, scratch: Path) -> tuple[float, float]:
    """Seconds from navigation to the end of loading, with its layout and scripts, and to the first paint."""
    with (
        tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as profile,
        browsing(Path(profile)) as browser,
    ):
        browser.open(page, 1280, dark=False)
        return browser.value(LOADED) / 1000, browser.value(PAINTED) / 1000


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
