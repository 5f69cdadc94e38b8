"""What components do at every token of a prompt, exactly, and in which kind of token they do it.

Pairs of prompts of equal length are aligned token by token. Before the first token that differs the two runs are the
same, so patching begins there. At each token from there on, of each pair, components take the values that they have at
the same token of the other prompt (`rcm.patching.interchange` with a tail: the last token that it patches is the first
of the tail, and all that follow are computed anew).

A token's place means another thing in another pair; its *role* means the same:

    differing words    tokens that differ between the two prompts
    shared words       tokens of the instruction after the first differing one that do not
    end of instruction each token of the template behind the instruction, by itself

    figure of a role in a pair = sum over the role's tokens of what patching that token alone does

The sum is not what patching the tokens together does. Of what several tokens hold alike, none is needed and each is
enough: necessity misses it, and sufficiency counts it once for each. Of what takes several tokens together it is the
other way about. A sum, and not the largest: the largest of many grows with how many there are, whatever they do. Under
swapped labels the sum, as each of its parts, goes to the other way with the other sign, which the p-values of
`rcm.patching.Effects` need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rcm.errors import InputError
from rcm.execution.components import Rows
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.models import LoadedModel
from rcm.patching import Interchange, Pair, interchange

DIFFERING, SHARED = 0, 1  # roles; those from 2 on are the end-of-instruction tokens, in their order
WORDS = 2  # how many roles are of words
Roles = Bool[np.ndarray, "pair token role"]


def reach(pair: Pair) -> int:
    """How many tokens there are from the first that differs to the last; 0 of equal prompts.

    Raises InputError for prompts of unequal length, whose tokens are not aligned.
    """
    first, second = pair
    if len(first) != len(second):
        raise InputError(
            f"The prompts of a pair have {len(first)} and {len(second)} tokens; tokens of pairs are aligned only in "
            "prompts of equal length, so leave this pair out."
        )
    return next((len(first) - i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), 0)


def roles_of(pairs: Sequence[Pair], ending: int) -> Roles:
    """Which role each token has, counted from the last token backwards; none before the first that differs.

    `ending`: how many tokens all prompts end in; the two of a pair differ in none of these.
    """
    reaches = list(map(reach, pairs))
    roles = np.zeros((len(pairs), max(reaches, default=0), WORDS + ending), dtype=bool)
    for i, ((first, second), length) in enumerate(zip(pairs, reaches, strict=True)):
        for token in range(length):
            differs = first[-1 - token] != second[-1 - token]
            role = WORDS + ending - 1 - token if token < ending else DIFFERING if differs else SHARED
            roles[i, token, role] = True
    return roles


@dataclass(frozen=True)
class TokenEffects:
    """What each row does at each token, both ways, in units of the metric; float64 on the CPU.

    Tokens are counted from the last one backwards; NaN before the first token that differs. `harmful`, `harmless`: the
    metric of the two prompts, unpatched.
    """

    harmful: Float[Tensor, " pair"]
    harmless: Float[Tensor, " pair"]
    necessity: Float[Tensor, "pair token row"]
    sufficiency: Float[Tensor, "pair token row"]

    @property
    def shares(self) -> Float[Tensor, "2 pair token row"]:
        """Necessity and sufficiency, in gaps of each pair."""
        return torch.stack([self.necessity, self.sufficiency]) / (self.harmful - self.harmless).abs()[:, None, None]

    def rows(self, index: Sequence[int]) -> "TokenEffects":
        """Only some of the rows."""
        chosen = list(index)
        return TokenEffects(self.harmful, self.harmless, self.necessity[..., chosen], self.sufficiency[..., chosen])

    def beside(self, other: "TokenEffects") -> "TokenEffects":
        """The rows of both, which are of the same pairs."""
        ways = (torch.cat([getattr(one, way) for one in (self, other)], -1) for way in ("necessity", "sufficiency"))
        return TokenEffects(self.harmful, self.harmless, *ways)

    def by_role(self, roles: Roles) -> Interchange:
        """Sums over the tokens of each role: the rows of the first role, then those of the second, and so on. 0 in
        pairs that have no token of a role."""
        chosen = torch.from_numpy(roles).double()
        lost, gained = (
            torch.einsum("ptn,ptr->prn", way.nan_to_num(), chosen).flatten(1)
            for way in (self.necessity, self.sufficiency)
        )
        return Interchange(self.harmful, self.harmless, self.harmful[:, None] - lost, self.harmless[:, None] + gained)


def engine_at_tokens(model: LoadedModel, pairs: Sequence[Pair], seed: int) -> Engine:
    """The way to patch these pairs, checked at the last token and at the longest tail that any two of them share, on
    prompts of the least alike lengths, so that padding is checked, too."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    (a, b), (c, d) = ordered[0], ordered[-1]
    tail = max(1, min(max(map(reach, pairs)), len(a) - 1))
    base, source = (cache_components(model, prompts, tail) for prompts in ([a, b, c, d], [b, a, d, c]))
    return engine_of(model, base, source, seed)


def exchange_at_tokens(
    engine: Engine, pairs: Sequence[Pair], patches: Rows, metric: LogOdds, label: str
) -> TokenEffects:
    """Patch every row at every token from the first differing one on, one token at a time, in pairs of equal length."""
    reaches = np.array([reach(pair) for pair in pairs], dtype=int)
    harmful, harmless = torch.empty(2, len(pairs), dtype=torch.float64)
    ways = torch.full((2, len(pairs), int(reaches.max(initial=0)), len(patches)), torch.nan, dtype=torch.float64)
    for tail in range(1, ways.shape[2] + 1):
        chosen = np.flatnonzero(reaches >= tail).tolist()
        study = interchange(engine, [pairs[i] for i in chosen], patches, metric, tail, f"{label}, token {-tail}")
        ways[:, chosen, tail - 1] = torch.stack([study.necessity, study.sufficiency])
        harmful[chosen], harmless[chosen] = study.harmful, study.harmless
    return TokenEffects(harmful, harmless, *ways)


def acting_layers(shares: Float[np.ndarray, "way pair role layer"], n: int) -> Int[np.ndarray, " chosen"]:
    """The `n` layers that do most in any role, by the mean over pairs of the size of what both ways do together.

    The size in a pair does not depend on which of its prompts is called harmful: where labels mean nothing, layers are
    chosen without them, and the p-values of what is measured in these layers stay exact.
    """
    sizes = np.abs(shares.mean(0)).mean(0).max(0)
    return np.sort(np.argsort(-sizes, kind="stable")[:n])
