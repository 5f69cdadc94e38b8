"""Directions that tell harmful from harmless prompts, fitted to activations of one position and layer.

    mean difference   mean(harmful) - mean(harmless)                     (Arditi et al. 2024; un-normalised)
    PCA               first right singular vector of harmful - mean(harmless), *not* centred: centring would remove the
                      very difference that is sought; its sign is set so that harmful lies higher
    probe             weights of a logistic regression, in units of the activations

Sums run in float64: in half precision the mean of a few hundred activations is off by more than small differences are.
"""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

Activations = Float[np.ndarray, "_ d_model"]  # the two classes differ in number, so the prompts are not bound
Vector = Float[np.ndarray, " d_model"]


def on_one_thread() -> AbstractContextManager[Any]:
    """For fits: their matrices are too small to share, and threads of BLAS that wait for each other at every step made
    one 29 times as slow, with nothing else at work."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    """Looking for them takes three milliseconds."""
    return ThreadpoolController()


def mean_difference(harmful: Activations, harmless: Activations) -> Vector:
    """From the harmless mean to the harmful mean; its length is the natural unit of steering at its place."""
    return harmful.mean(0, dtype=np.float64) - harmless.mean(0, dtype=np.float64)


def principal_direction(harmful: Activations, harmless: Activations) -> Vector:
    """The unit vector along which harmful activations lie farthest from the harmless mean; zero if they do not."""
    offsets = harmful.astype(np.float64) - harmless.mean(0, dtype=np.float64)
    # Of the smaller of the two Gram matrices: a tenth of the time of all singular vectors.
    wide = offsets.shape[0] < offsets.shape[1]
    gram = offsets @ offsets.T if wide else offsets.T @ offsets
    vector = eigh(gram, subset_by_index=[len(gram) - 1] * 2)[1][:, 0]
    vector = unit(vector @ offsets if wide else vector)
    return vector * np.sign(offsets.mean(0) @ vector)


def probe(harmful: Activations, harmless: Activations) -> Pipeline:
    """A logistic regression on standardised activations, fitted; class 1 is harmful."""
    with on_one_thread():
        return probe_model().fit(np.concatenate([harmful, harmless]), np.repeat([1, 0], [len(harmful), len(harmless)]))


def probe_model() -> Pipeline:
    """The same, not yet fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def probe_direction(fitted: Pipeline) -> Vector:
    """The probe's weights as a vector in the space of activations."""
    return fitted[-1].coef_[0] / fitted[0].scale_


def correct(fitted: Pipeline, harmful: Activations, harmless: Activations) -> Bool[np.ndarray, " prompt"]:
    """Which prompts the probe puts on their side, harmful first."""
    return np.concatenate([fitted.predict(harmful) == 1, fitted.predict(harmless) == 0])


def unit(vector: Float[np.ndarray, "*shape d_model"]) -> Float[np.ndarray, "*shape d_model"]:
    """Scaled to length one; a zero vector stays zero."""
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.divide(vector, length, out=np.zeros_like(vector), where=length > 0)


def random_directions(n: int, d_model: int, seed: int) -> Float[np.ndarray, "n d_model"]:
    """Unit vectors, uniform on the sphere: the null of a direction."""
    return unit(np.random.default_rng(seed).standard_normal((n, d_model)))


def shuffled_differences(
    harmful: Activations, harmless: Activations, n: int, seed: int
) -> Float[np.ndarray, "n d_model"]:
    """Mean differences under labels that tell nothing: half of each class changes sides. Directions in which prompts
    do differ, but not as harmful ones from harmless."""
    random = np.random.default_rng(seed)

    def drawn() -> Vector:
        halves = (np.array_split(random.permutation(side), 2) for side in (harmful, harmless))
        return mean_difference(*map(np.concatenate, zip(*halves, strict=True)))

    return np.stack([drawn() for _ in range(n)]) if n else np.zeros((0, harmful.shape[1]))


def shuffled_controls(harmful: Activations, harmless: Activations, n: int, seed: int) -> Float[np.ndarray, "n d_model"]:
    """Such differences less what they share with the true one.

    Prompts of one class differ along the true direction too, some being more harmful than others. A control that leans
    that way, brought to full length, would hold what it is the control of.
    """
    true = unit(mean_difference(harmful, harmless))
    drawn = shuffled_differences(harmful, harmless, n, seed)
    return drawn - np.outer(drawn @ true, true)
