"""Questions put to the row engine (`rcm.execution`): what do components change when they are exchanged?

engine = engine_of(model, base, source, seed)        # rows, or the slow loop where rows are not exact
study = interchange(engine, pairs, Rows.each(COMPONENT_KINDS, engine.shape), LogOdds(refusal_tokens))
study.necessity, study.sufficiency                   # [pair, row], in units of the metric
"""

from rcm.patching.contribution import contributions
from rcm.patching.effects import ALPHA, Effects, ShareEstimates, stability
from rcm.patching.interchange import Interchange, Pair, batches, interchange, interchange_of_replies
from rcm.patching.ranking import Ranking, rank_heads
from rcm.patching.replies import own_replies

__all__ = [
    "ALPHA",
    "Effects",
    "Interchange",
    "Pair",
    "Ranking",
    "ShareEstimates",
    "batches",
    "contributions",
    "interchange",
    "interchange_of_replies",
    "own_replies",
    "rank_heads",
    "stability",
]
