"""From finished runs to conclusions: what is compared with what, what differs, and what that means.

The report draws what stands here, and concludes nothing itself. `python -m rcm.comparison runs` writes it as JSON.
"""

from rcm.comparison.conclusions import Comparison, compare

__all__ = ["Comparison", "compare"]
