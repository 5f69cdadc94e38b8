"""The direction method must find what was planted, and nothing where labels mean nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rcm.directions.causal import Scores
from rcm.directions.fit import mean_difference, principal_direction, probe, probe_direction, unit
from rcm.directions.places import frontier, other_limits
from rcm.directions.selection import select
from rcm.errors import InputError
from rcm.execution.passes import last_logits
from rcm.prompts import Part, Split, texts
from rcm.stats.metrics import kl_divergence, refusal_log_odds
from rcm.stats.separability import auroc, separation
from tests.planted import composed, method, planted_direction, planted_model, planted_prompts, reported, shuffled


@pytest.fixture(scope="module")
def found() -> dict:
    return reported(method("direction", exhaustive=True), planted_model(), planted_prompts())


def test_planted_layer_is_selected(found: dict) -> None:
    assert found["direction/outcome"].value == "selected"
    assert (found["direction/position"].value, found["direction/layer"].value) == (-1, 3)


def test_planted_direction_is_extracted(found: dict) -> None:
    tensors, metadata = found["direction/directions"].tensors, found["direction/directions"].metadata
    assert tensors["mean_difference"].shape == (1, 6, 32)
    for name in ("mean_difference", "principal"):
        extracted = torch.nn.functional.normalize(tensors[name][0, 3], dim=0)
        assert extracted @ planted_direction() > 0.99, name
    assert tensors["mean_difference"][0, 2] @ planted_direction() == pytest.approx(
        0, abs=0.05
    )  # idle weights leak a little
    assert metadata["hook_point"] == "resid_pre"
    assert metadata["template_hash"]


def test_shuffled_labels_give_the_null_of_the_direction(found: dict) -> None:
    tensors = found["direction/directions"].tensors
    assert tensors["shuffled"].shape == (1, 6, 20, 32)
    drawn = tensors["shuffled"][0, 3]
    assert (drawn @ planted_direction()).abs().max() < 0.3 * (tensors["mean_difference"][0, 3] @ planted_direction())
    assert len({tuple(vector.tolist()) for vector in drawn}) == 20


def test_held_out_figures_exceed_their_nulls(found: dict) -> None:
    assert found["direction/separation"].value > 2
    assert found["direction/probe_accuracy"].value == 1 > found["direction/probe_accuracy"].null.value
    assert found["direction/auroc"].value == pytest.approx(1)
    assert found["direction/bypass"].value < 0 < found["direction/bypass"].null.value
    assert found["direction/induce"].value > 0 > found["direction/induce"].null.value
    low, high = found["direction/separation"].interval
    assert low <= found["direction/separation"].value <= high


def test_template_alone_differs_nowhere(found: dict) -> None:
    """At the input of layer 0 an end-of-instruction token is its embedding, whatever the prompt."""
    assert not found["direction/directions"].tensors["mean_difference"][:, 0].any()


def test_candidates_hold_every_figure(found: dict) -> None:
    table = found["direction/candidates"]
    assert table.columns == ("position", "layer", "bypass", "induce", "kl", "separation", "auroc", "norm")
    assert len(table.rows) == 6
    assert not np.isnan(np.array(table.rows[1:], dtype=float)).any()


def test_scores_equal_the_slow_reference(found: dict) -> None:
    """Bypass, induce and KL of the chosen candidate, one prompt at a time, on a model with hooks of our own: on
    validation prompts, which choose, and on test prompts, which the reported figures are of."""
    model, prompts = planted_model(), planted_prompts()
    vector = found["direction/directions"].tensors["mean_difference"][0, 3]
    r = vector / vector.norm()
    token = (model.template.tokenizer("R")["input_ids"][0],)

    def ablated(prompt: str) -> torch.Tensor:
        hooks = []
        for block in model.hf.model.layers:
            hooks.append(block.register_forward_pre_hook(lambda m, a: (a[0] - (a[0] @ r)[..., None] * r, *a[1:])))
            hooks.append(block.mlp.register_forward_hook(lambda m, a, o: o - (o @ r)[..., None] * r))
            hooks.append(
                block.self_attn.register_forward_hook(lambda m, a, o: (o[0] - (o[0] @ r)[..., None] * r, *o[1:]))
            )
        logits = model.hf(torch.tensor([model.template.tokens(prompt)])).logits[:, -1]
        for hook in hooks:
            hook.remove()
        return logits

    def added(prompt: str) -> torch.Tensor:
        hook = model.hf.model.layers[3].register_forward_pre_hook(lambda m, a: (a[0] + vector, *a[1:]))
        logits = model.hf(torch.tensor([model.template.tokens(prompt)])).logits[:, -1]
        hook.remove()
        return logits

    chosen = found["direction/candidates"].rows[3][2:5]
    reported_ones = [found[f"direction/{name}"].value for name in ("bypass", "induce", "kl")]
    for part, figures in ((prompts.validation, chosen), (prompts.test, reported_ones)):
        harmful, harmless = map(texts, part)
        bypass = refusal_log_odds(torch.cat([ablated(p) for p in harmful]), token).mean()
        induce = refusal_log_odds(torch.cat([added(p) for p in harmless]), token).mean()
        kl = kl_divergence(last_logits(model, harmless), torch.cat([ablated(p) for p in harmless])).mean()
        assert figures[0] == pytest.approx(bypass.item(), abs=1e-3)
        assert figures[1] == pytest.approx(induce.item(), abs=1e-3)
        assert figures[2] == pytest.approx(kl.item(), abs=1e-4)


def test_less_work_makes_the_same_choice(found: dict) -> None:
    lazy = reported(method("direction", exhaustive=False), planted_model(), planted_prompts())
    for name in ("position", "layer", "separation"):
        assert lazy[f"direction/{name}"] == found[f"direction/{name}"]
    for name in ("bypass", "induce", "kl"):  # scored beside other candidates, and rounded otherwise
        assert lazy[f"direction/{name}"].value == pytest.approx(found[f"direction/{name}"].value, rel=1e-5, abs=1e-6)
    assert np.isnan(np.array(lazy["direction/candidates"].rows, dtype=float)).any()


def test_shuffled_labels_select_nothing() -> None:
    settings = method("direction", filter=False)
    found = reported(settings, planted_model(), shuffled(planted_prompts()))
    assert found["direction/outcome"].value in ("nearest_miss", "no_refusal_behaviour")
    assert found["direction/separation"].value < 2


def test_no_survivor_is_told_with_the_nearest_misses() -> None:
    """And it is gone on with the first of them, marked as such."""
    found = reported(method("direction", max_kl=0.0), planted_model(), planted_prompts())
    outcome = found["direction/outcome"]
    assert (outcome.value, outcome.complete, outcome.tag) == ("nearest_miss", True, "selection: nearest_miss")
    assert "The nearest: position -1, layer 3" in outcome.because
    assert "fails kl" in outcome.because
    assert found["direction/layer"].value == 3
    for name in ("bypass", "induce", "kl", "separation", "probe_accuracy", "auroc"):
        assert found[f"direction/{name}"].caveat == "nearest miss"
    assert found["direction/bypass"].value < 0
    (row,) = (row for row in found["direction/other_limits"].rows if row[1] == 3)
    assert row[2] > 0, "what it would take to select it"


def test_the_frontier_has_every_scored_candidate_and_rings_the_choice() -> None:
    grids = np.arange(6.0).reshape(2, 3), np.ones((2, 3)), np.full((2, 3), 0.5)
    grids[2][0, 1] = np.nan
    drawn = frontier((-2, -1), Scores(*grids), (1, 2), 0.1)
    assert [drawn.points[i] for i in drawn.marked] == ["position -1, layer 2"]
    assert list(drawn.y) == [0.0, 2.0, 3.0, 4.0, 5.0]
    assert drawn.x_limit == 0.1
    assert (
        frontier((-2, -1), Scores(*grids), (0, 1), 0.1).marked == []
    )  # the most separable place, which was not scored


def test_what_other_limits_would_select() -> None:
    """At every limit on KL from the least that was scored on, what `select` says."""
    draw = np.random.default_rng(0)
    for _ in range(20):
        bypass, induce, kl = draw.normal(size=(3, 2, 10))
        scores = Scores(bypass, induce, np.abs(kl))
        scores.kl[draw.random(kl.shape) < 0.2] = np.nan
        rows = other_limits((-2, -1), scores, 0.8, 0.0).rows
        assert rows
        for limit in np.linspace(0, 3, 31):
            chosen = select(scores.bypass, scores.induce, scores.kl, max_kl=limit)
            within = [row for row in rows if row[2] <= limit]
            assert bool(chosen.survivors) == bool(within)
            if chosen.survivors:
                assert chosen.ranked[0][:5] == (*within[-1][:2], within[-1][3], within[-1][4], within[-1][2])


def test_strictly_no_survivor_is_none() -> None:
    found = reported(method("direction", max_kl=0.0, strict=True), planted_model(), planted_prompts())
    assert (found["direction/outcome"].value, found["direction/outcome"].complete) == ("none", False)
    assert "The nearest: position -1, layer 3" in found["direction/outcome"].because
    assert np.isnan(found["direction/bypass"].value)
    assert not any(one.caveat for one in found.values() if hasattr(one, "caveat"))


def test_model_that_never_refuses_has_nothing_to_select() -> None:
    model = planted_model()
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[model.template.tokenizer("R")["input_ids"][0]] = 0
    found = reported(method("direction"), model, planted_prompts())
    assert found["direction/outcome"].value == "no_refusal_behaviour"
    assert found["direction/separation"].value > 2  # it sees the difference all the same


def test_words_that_tell_as_much_are_told(found: dict) -> None:
    """The planted trigger is a sign, which a count of signs sees as well as the model does."""
    assert found["direction/readable"].value == "confounded"
    assert "learned from the same 48 prompts" in found["direction/readable"].because
    assert found["direction/above_texts"].interval[0] <= 0


def test_what_words_do_not_tell_is_readable() -> None:
    """A letter within words that are all different: a byte model sees it, a count of words does not."""
    found = reported(method("direction"), planted_model(trigger="q"), planted_prompts(trigger="q"))
    assert found["direction/outcome"].value == "selected"
    assert found["direction/readable"].value == "readable"
    assert found["direction/above_texts"].interval[0] > 0


def test_shuffled_labels_are_not_readable() -> None:
    found = reported(method("direction", filter=False), planted_model(), shuffled(planted_prompts()))
    assert found["direction/readable"].value == "not_readable"


def partly_harmful(split: Split) -> Split:
    """Every fourth harmful prompt lacks what the model takes for harmful: it is answered."""

    def mixed(part: Part) -> Part:
        return Part(tuple(b if i % 4 == 3 else a for i, (a, b) in enumerate(zip(*part, strict=True))), part.harmless)

    return replace(split, train=mixed(split.train), validation=mixed(split.validation), test=mixed(split.test))


def test_only_what_intervenes_is_filtered() -> None:
    """What is readable is the same whether the prompts that the model takes otherwise are dropped or not."""
    prompts = partly_harmful(planted_prompts(sizes=(24, 24, 24)))
    kept, whole = (reported(method("direction", filter=on), planted_model(), prompts) for on in (True, False))
    counts = {(row[0], row[1]): row[2:] for row in kept["direction/kept"].rows}
    assert counts["training", "harmful"] == counts["test", "harmful"] == (18, 24)
    assert counts["validation", "harmless"] == (24, 24)
    for name in ("separation", "probe_accuracy", "auroc", "map_separation", "map_auroc", "by_layer", "separability"):
        first, second = (repr(one[f"direction/{name}"]) for one in (kept, whole))
        assert first == second, name
    first, second = (one["direction/directions"].tensors for one in (kept, whole))
    assert torch.equal(first["mean_difference_all"], second["mean_difference_all"])
    assert torch.equal(second["mean_difference_all"], second["mean_difference"])
    assert first["mean_difference"][0, 3].norm() > 1.2 * second["mean_difference"][0, 3].norm()
    assert kept["direction/bypass"].n == 18
    assert whole["direction/bypass"].n == 24


def test_too_few_test_prompts_conclude_nothing() -> None:
    found = reported(method("direction"), planted_model(), planted_prompts(sizes=(24, 12, 2)))
    assert found["direction/outcome"].value == "selected"
    assert found["direction/readable"].value == "too_few"
    for name in ("separation", "probe_accuracy", "auroc", "bypass", "induce", "kl"):
        figure = found[f"direction/{name}"]
        assert np.isnan(figure.value)
        assert figure.interval is None
        assert "use at least 8 of a class (dataset.test)" in figure.absent
    assert np.isnan([row[2] for row in found["direction/separability"].rows]).all()


@pytest.mark.parametrize(("sizes", "option"), [((3, 12, 12), "dataset.train"), ((12, 3, 12), "dataset.validation")])
def test_too_few_prompts_to_choose_by_are_not_taken_for_no_refusing(sizes: tuple[int, int, int], option: str) -> None:
    found = reported(composed("direction", "patching"), planted_model(), planted_prompts(sizes=sizes))
    assert found["direction/outcome"].value == "too_few"
    assert f"use at least 8 of a class ({option})" in found["direction/outcome"].because
    assert found["patching/outcome"].value != "no_refusal_behaviour"


def test_positions_beyond_the_template_are_refused() -> None:
    with pytest.raises(InputError, match=r"method\.direction\.positions"):
        reported(method("direction", positions=[-9]), planted_model(), planted_prompts())


def test_pca_does_not_centre_the_difference_away() -> None:
    random = np.random.default_rng(0)
    difference = unit(random.normal(size=20)) * 5
    # More spread within each class than a centred PCA of the offsets could overlook.
    noise = random.normal(size=(2, 200, 20)) * np.where(np.arange(20) == 0, 3.0, 0.3)
    harmful, harmless = noise[0] + difference, noise[1]
    assert unit(principal_direction(harmful, harmless)) @ unit(difference) > 0.8
    assert unit(mean_difference(harmful, harmless)) @ unit(difference) > 0.99


def test_probe_direction_is_in_units_of_activations() -> None:
    random = np.random.default_rng(0)
    harmful, harmless = random.normal(size=(2, 50, 3)) * [1.0, 100.0, 0.01]
    harmful[:, 0] += 6
    fitted = probe(harmful, harmless)
    margins = np.concatenate([harmful, harmless]) @ probe_direction(fitted)
    decided = fitted.decision_function(np.concatenate([harmful, harmless]))
    assert np.ptp(margins - decided) < 1e-9  # equal up to the intercept


def test_auroc_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    harmful, harmless = draw.standard_normal(48).round(1) + 0.3, draw.standard_normal(60).round(1)  # with ties
    labels = np.repeat([1, 0], [48, 60])
    assert auroc(harmful, harmless) == pytest.approx(roc_auc_score(labels, np.concatenate([harmful, harmless])))


def test_separation_and_auroc_of_known_data() -> None:
    random = np.random.default_rng(0)
    harmful, harmless = random.normal(size=(2, 20_000))
    assert separation(harmful + 3, harmless) == pytest.approx(3, abs=0.05)
    assert auroc(harmful, harmless) == pytest.approx(0.5, abs=0.02)
    assert separation(np.zeros(3), np.zeros(3)) == 0


def test_float64_means_keep_what_float32_loses() -> None:
    large = np.full((4000, 1), 1e4, dtype=np.float32)
    shifted = large + np.float32(1e-2)
    assert mean_difference(shifted, large)[0] == pytest.approx(float(shifted[0, 0] - large[0, 0]), rel=1e-6)
