"""Sets of heads beside random ones: what they are, and that the fast way measures what the slow one does."""

from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from rcm.execution.components import Component, Rows, Shape
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.patching import Pairs, beside_random, first_of, heads_needed, interchange, random_orders, sizes_up_to
from rcm.patching.together import SIZES
from rcm.prompts import Part, Prompt
from tests.conftest import tiny_model

SHAPE = Shape(3, 4)
ORDER = [SHAPE.components(["head"])[i] for i in np.random.default_rng(0).permutation(12)]


def test_random_orders_have_the_same_layers_and_all_heads() -> None:
    orders = random_orders(200, ORDER, seed=0)
    for order in orders:
        assert [one.layer for one in order] == [one.layer for one in ORDER]
        assert sorted(order) == sorted(ORDER)
    firsts = Counter(order[0].number for order in orders)
    assert set(firsts) == {0, 1, 2, 3}
    assert min(firsts.values()) > 30
    assert orders == random_orders(200, ORDER, seed=0)
    assert orders != random_orders(200, ORDER, seed=1)


@pytest.mark.parametrize("heads", [1, 2, 12, 270, 1024])
def test_sizes_begin_with_one_and_end_with_all(heads: int) -> None:
    sizes = sizes_up_to(heads)
    assert (sizes[0], sizes[-1]) == (1, heads)
    assert sizes == sorted(set(sizes))
    assert len(sizes) <= SIZES
    assert sizes == list(range(1, heads + 1)) or sizes[:4] == [1, 2, 3, 4]
    assert all(b <= max(a + 1, 1.4 * a) for a, b in pairwise(sizes))


def test_heads_needed_are_the_first_that_reach_a_part_of_the_whole() -> None:
    shares = np.array([[0.1, 0.5, 0.8, 1.0], [0.9, 1.3, 1.1, 1.0], [0.0, 0.0, 0.0, 2.0]])
    assert heads_needed(shares, [1, 2, 4, 8], 0.5).tolist() == [2, 1, 8]
    assert heads_needed(shares, [1, 2, 4, 8], 0.8).tolist() == [4, 1, 8]


def test_sets_and_random_sets_are_measured_as_one_pass_for_each_would() -> None:
    """All sets side by side in rows, against the slow loop with one set at a time."""
    model = tiny_model(batch_size=16)
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("abcdef gh"), draw.integers(6, 14))) + "!" for _ in range(12)]
    prompts = [Prompt(text, "") for text in texts]
    pairs = Pairs.of(model, Part(tuple(prompts[:6]), tuple(prompts[6:])), paired=True)
    sets = first_of(ORDER, [1, 3, 12], SHAPE)

    def random(n: int, seed: int) -> Rows:
        return Rows.concat([first_of(order, [1, 3, 12], SHAPE) for order in random_orders(n, ORDER, seed)])

    def exchange(way: str, some: Pairs, patches: Rows):
        return interchange(Engine(model, way, "", None), some.tokens, patches, LogOdds((70, 71)))

    ours, others = beside_random(partial(exchange, "rows"), pairs, sets, random, draws=5, per_draw=4, seed=3)
    assert ours.shape == (2, 6, 3)
    assert others.shape == (2, 6, 3)  # two groups of pairs, three orders for each
    for size in range(3):
        for i in range(6):
            alone = exchange("loop", pairs.some([i]), first_of(ORDER, [[1, 3, 12][size]], SHAPE))
            assert ours[:, i, size] == pytest.approx(alone.shares[:, 0, 0].numpy(), abs=1e-4)
    for number, group in enumerate([range(4), range(4, 6)]):
        for place, order in enumerate(random_orders(3, ORDER, 3 + number)):
            for size, heads in enumerate([1, 3, 12]):
                slow = exchange("loop", pairs.some(group), Rows.of([order[:heads]], SHAPE)).shares.mean(1)[:, 0]
                assert others[:, 3 * number + place, size] == pytest.approx(slow.numpy(), abs=1e-4)
    assert others[..., 2][:, :3] == pytest.approx(ours[:, :4, 2].mean(1)[:, None].repeat(3, 1), abs=1e-4)
    assert np.abs(ours).max() > 0.01


def test_a_concentrated_circuit_needs_fewer_heads_than_an_even_one_and_than_chance() -> None:
    """Without a model: heads add up, and either two of them or all alike do everything."""
    order = [Component("head", i % 6, i // 6) for i in range(48)]
    sizes = sizes_up_to(48)

    def needed(weights: dict[Component, float], part: float) -> tuple[float, np.ndarray]:
        def curve(one: list[Component]) -> np.ndarray:
            return np.array([sum(weights[head] for head in one[:size]) for size in sizes])

        randoms = np.stack([curve(one) for one in random_orders(100, order, seed=0)])
        return float(heads_needed(curve(order)[None], sizes, part)[0]), heads_needed(randoms, sizes, part)

    two = {head: 0.5 if i < 2 else 0.0 for i, head in enumerate(order)}
    ours, chance = needed(two, 0.8)
    assert ours == 2
    assert np.mean(chance <= ours) < 0.05
    even = dict.fromkeys(order, 1 / 48)
    ours, chance = needed(even, 0.8)
    assert ours >= 38
    assert (chance == ours).all()
