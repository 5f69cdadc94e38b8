"""Exact activation patching: any set of components, many sets in one pass.

engine = engine_of(model, base, source, seed)        # rows, or the slow loop where rows are not exact
study = interchange(engine, pairs, Rows.each(KINDS, engine.shape), LogOdds(refusal_tokens))
study.necessity, study.sufficiency                   # [pair, row], in units of the metric
"""

from rcm.patching.components import KINDS, Component, Kind, Rows, Shape
from rcm.patching.contribution import contributions
from rcm.patching.effects import ALPHA, Effects, Estimate, stability
from rcm.patching.engine import Engine, engine_of
from rcm.patching.interchange import Interchange, Pair, batches, interchange, interchange_of_replies
from rcm.patching.metric import Likelihood, LogOdds, Metric
from rcm.patching.ranking import Ranking, rank_heads
from rcm.patching.recording import Recording, Values, mean_values, record
from rcm.patching.replies import own_replies

__all__ = [
    "ALPHA",
    "KINDS",
    "Component",
    "Effects",
    "Engine",
    "Estimate",
    "Interchange",
    "Kind",
    "Likelihood",
    "LogOdds",
    "Metric",
    "Pair",
    "Ranking",
    "Recording",
    "Rows",
    "Shape",
    "Values",
    "batches",
    "contributions",
    "engine_of",
    "interchange",
    "interchange_of_replies",
    "mean_values",
    "own_replies",
    "rank_heads",
    "record",
    "stability",
]
