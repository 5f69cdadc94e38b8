"""Everything from Python: a model, prompts, and each method of the command line as a function of its name.

    model = rcm.load("pythia-160m", revision="step1000", device="cuda")  # an option, folder, GGUF file or hub id
    model = rcm.wrap(hf_model, tokenizer)                                # a model of yours, as it lies in memory
    mine = rcm.dataset(harmful=[...], harmless=[...])                    # or rcm.dataset("advbench", test=50)
    direction = rcm.direction(model, dataset=mine, max_kl=0.3)
    circuit = rcm.circuit(model, direction=direction)

Settings and defaults are those of `conf/`, results are the objects of the runs, and equal settings give equal figures.
Nothing is written to the disk. What a method needs is run first; what was found is kept with the model, and not found
again for the same settings and prompts.

    models       a model with what was found in it; where it comes from
    datasets     prompts
    measured     one method, after what it needs
    findings     what a method found, by the names of its results
    localised    of patching and circuits: critical layers and heads, nodes
    directions   of a direction: the vector; forcing and suppressing
    shown        one result, as people read it
    pictures     one picture that needs no page around it
"""

import logging

from rcm.api.datasets import dataset
from rcm.api.measured import method
from rcm.api.models import load, wrap

__all__ = ["dataset", "load", "method", "wrap"]

_log = logging.getLogger("rcm")
if not _log.hasHandlers():  # else whoever has set up logging decides
    _log.addHandler(logging.StreamHandler())
    _log.setLevel(logging.INFO)
    _log.propagate = False
