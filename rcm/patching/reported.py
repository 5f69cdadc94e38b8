"""What patching reports as critical, for those who hold it against the noise of the model's arithmetic."""

from dataclasses import dataclass

import numpy as np

from rcm.patching.effects import Effects


@dataclass(frozen=True)
class ReportedEffects:
    """The critical components by name, and the effect of each in nats: its share of the mean gap. None of either where
    nothing is critical or nothing was patched."""

    names: tuple[str, ...] = ()
    nats: tuple[float, ...] = ()

    @classmethod
    def of(cls, effects: Effects, min_share: float, gap: float) -> "ReportedEffects":
        cells = np.flatnonzero(effects.critical(min_share)).tolist()
        names = tuple(str(effects.components[cell]) for cell in cells)
        return cls(names, tuple(float(effects.share[cell]) * gap for cell in cells))
