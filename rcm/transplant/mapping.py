"""Directions between models of unlike shape: a linear map from the activations of one to those of the other.

Fitted by ridge regression on harmless prompts alone, at the place and at the like depth, so that it cannot have been
told what refusing looks like; its strength is chosen by leave-one-out. What comes through is a *mapped* direction, and
is always called so.
"""

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import RidgeCV

STRENGTHS = np.logspace(-6, 1, 15)  # as shares of the activations' whole variance


def mapped(
    vector: Float[np.ndarray, " source"],
    here: Float[np.ndarray, "prompt source"],
    there: Float[np.ndarray, "prompt target"],
) -> Float[np.ndarray, " target"]:
    """The vector as the target has it; rows of both are activations on the same harmless prompts."""
    scale = np.linalg.norm(here - here.mean(0)) or 1.0
    fitted = RidgeCV(alphas=STRENGTHS).fit(here / scale, there)
    return (vector / scale) @ fitted.coef_.T


def like_depth(layer: int, layers: int, of: int) -> int:
    """The layer as far down a model of `of` layers as `layer` is in one of `layers`."""
    return min(of - 1, round(layer / layers * of))
