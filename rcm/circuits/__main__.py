"""A run's circuit in the format of the Mechanistic Interpretability Benchmark (`rcm.circuits.importances`).

python -m rcm.circuits RUN > importances.json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rcm.circuits.described import FOUND
from rcm.circuits.importances import importances
from rcm.errors import InputError
from rcm.execution.components import Shape
from rcm.record.results import Tensors
from rcm.record.stored import stored_run


def importances_of(found: Tensors) -> dict[str, Any]:
    """Of what the method `circuit` keeps."""
    told, tensors = found.metadata, found.tensors
    return importances(
        tensors["circuit"].numpy(),
        tensors["effects"].double().numpy(),
        tensors["edges"].double().numpy(),
        tensors["connected"].numpy(),
        Shape(int(told["layers"]), int(told["heads"])),
        {"parallel_attn_mlp": told["parallel"] == "true", "d_model": int(told["d_model"])},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m rcm.circuits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the directory of a finished run with method=circuit")
    json.dump(importances_of(stored_run(parser.parse_args().run).tensors(FOUND)), sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
