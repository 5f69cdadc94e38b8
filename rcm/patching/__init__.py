"""Questions put to the row engine (`rcm.execution`): what do components change when they are exchanged?

engine = engine_for(model, pairs, seed)                # rows, or the slow loop where rows are not exact
study = interchange(engine, pairs, Rows.each(COMPONENT_KINDS, engine.shape), LogOdds(refusal_tokens))
study.necessity, study.sufficiency                   # [pair, row], in units of the metric
"""

from rcm.patching.contribution import contributions, written_shares
from rcm.patching.effects import ALPHA, Effects, ShareEstimates, stability
from rcm.patching.interchange import Interchange, Pair, by_length, engine_for, interchange, interchange_of_replies
from rcm.patching.pairs import Pairs, matched
from rcm.patching.replies import own_replies
from rcm.patching.together import beside_random, first_of, heads_needed, random_orders, sizes_up_to

__all__ = [
    "ALPHA",
    "Effects",
    "Interchange",
    "Pair",
    "Pairs",
    "ShareEstimates",
    "beside_random",
    "by_length",
    "contributions",
    "engine_for",
    "first_of",
    "heads_needed",
    "interchange",
    "interchange_of_replies",
    "matched",
    "own_replies",
    "random_orders",
    "sizes_up_to",
    "stability",
    "written_shares",
]
