"""Scores by gradients against TransformerLens, against exact patching, and against what must hold of any of them."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

from benchmarks.attribution import Difference, error
from rcm.circuits import attribution, ground_truth
from rcm.circuits.attribution import Attribution, Reader, Writer, attribute, cost, steps_of
from rcm.circuits.ground_truth import CIRCUIT, EDGES, EMBEDDING, LOGITS
from rcm.execution.components import Component
from rcm.execution.interventions import Site, applied
from rcm.execution.metric import LogOdds
from rcm.models import LoadedModel
from rcm.models.points import Points
from tests.conftest import Tiny

Pair = tuple[list[int], list[int]]
METRIC = LogOdds((7, 9))


def pairs(*lengths: int, alike: int = 0, seed: int = 0) -> list[Pair]:
    """Of these lengths; `alike`: how many tokens both begin with."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        clean, corrupt = (torch.randint(5, 200, (length,), generator=draw).tolist() for _ in range(2))
        made.append((clean, clean[:alike] + corrupt[alike:]))
    return made


def edge(found: Attribution, writer: Writer, reader: Reader) -> float:
    return float(found.edges[found.writers.index(writer), found.readers.index(reader)])


@pytest.mark.parametrize("path", ["clean", "corrupt", "midpoint", "right"])
def test_the_edges_of_a_writer_sum_up_to_its_node(tiny: Tiny, family: str, path: attribution.Path) -> None:
    model = tiny(family, batch_size=8)
    found = attribute(model, pairs(9, 9, 12), METRIC, path=path, steps=3)
    assert found.nodes.shape == (3, len(found.writers)) == (3, 1 + 3 * 5)
    assert found.edges.shape == (len(found.writers), len(found.readers))
    nodes = found.nodes.mean(0)
    assert torch.allclose(found.edges.sum(1), nodes, atol=1e-5 * float(nodes.abs().max()))
    assert nodes.abs().median() > 1e-3 * nodes.abs().max(), "zeros would agree with zeros"
    assert found.off_by < 1e-5
    assert not found.edges[~found.connected].any()


def test_grouped_keys_are_readers_of_their_own(tiny: Tiny) -> None:
    """A model whose groups were written out has the same logits, and edges that sum up to those of the group."""
    grouped = tiny("llama", batch_size=8)
    whole = tiny("llama", batch_size=8, num_key_value_heads=4)
    weights = grouped.hf.state_dict()
    for name, weight in weights.items():
        if "k_proj" in name or "v_proj" in name:
            weights[name] = weight.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    whole.hf.load_state_dict(weights)
    few, many = (attribute(model, pairs(9, 12), METRIC) for model in (grouped, whole))
    assert [reader.head for reader in few.readers if reader.kind == "key" and reader.layer == 1] == [0, 1]
    assert torch.allclose(few.nodes, many.nodes, atol=1e-6)
    written = Writer("head", 0, 3)
    for kind in ("key", "value"):
        for head in (0, 1):
            apart = [edge(many, written, Reader(kind, 2, 2 * head + i)) for i in range(2)]
            assert edge(few, written, Reader(kind, 2, head)) == pytest.approx(sum(apart), rel=1e-4, abs=1e-7)
            assert edge(few, written, Reader(kind, 2, head)) != 0
    for head in range(4):
        reader = Reader("query", 2, head)
        assert edge(few, written, reader) == pytest.approx(edge(many, written, reader), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("sign", ["denoising", "noising"])
def test_scores_are_those_of_transformer_lens(tiny: Tiny, sign: attribution.Sign) -> None:
    """Which takes the gradient at the corrupt prompt, and what is clean less what is corrupt."""
    model, (clean, corrupt) = tiny("gpt2", batch_size=8), pairs(8)[0]
    tree = copy.deepcopy(model.hf).requires_grad_(True)  # as it needs, to keep a graph
    bridge = build_bridge_from_module(tree, "GPT2LMHeadModel", hf_config=tree.config)
    bridge.eval()
    ours = attribute(model, [(clean, corrupt)], Difference(), path="corrupt", sign=sign)
    theirs = attribution_patch(
        bridge,
        *(torch.tensor([prompt]) for prompt in (clean, corrupt)),
        lambda logits: logits[0, -1, 7] - logits[0, -1, 9],
        EdgeAttributionConfig(granularity="edge"),
    )
    assert int(ours.connected.sum()) == len(theirs.edge_scores) // len(clean)
    assert ours.edges.abs().max() > 1e-3
    if sign == "noising":
        ours = replace(ours, edges=-ours.edges)
    assert error(ours, theirs, model) < 1e-5


def test_where_everything_is_linear_gradients_are_exact(tiny: Tiny) -> None:
    """No norm, no MLP, attention that looks everywhere alike: attribution at either end, integrated gradients and
    patching one writer at a time agree."""
    model = tiny("llama", batch_size=8)
    linear(model.hf)
    clean, corrupt = pairs(9)[0]
    found = [attribute(model, [(clean, corrupt)], Difference(), path=path) for path in ("clean", "corrupt", "midpoint")]
    exact = patched(model, clean, corrupt)
    assert exact.abs().max() > 1e-3
    for one in found:
        assert torch.allclose(one.nodes[0], exact, atol=1e-4 * float(exact.abs().max()))


def linear(hf: nn.Module) -> None:
    for name, module in hf.named_modules():
        if name.endswith("norm"):
            module.forward = lambda x: x  # type: ignore[method-assign]
        if name.endswith(("q_proj", "k_proj")):
            module.weight.data.zero_()  # type: ignore[union-attr, operator]
        if name.endswith("act_fn"):
            module.forward = torch.zeros_like  # type: ignore[method-assign]


class Put:
    """What was recorded of one writer, put in place of what it writes, at every position."""

    def __init__(self, where: str, layer: int, head: int | None, value: Tensor) -> None:
        self.where, self.layer, self.head, self.value = where, layer, head, value

    def rows(self, index: Sequence[int]) -> "Put":
        return self

    def sites(self, points: Points) -> "list[Site]":
        module = getattr(points, self.where)[self.layer]

        def edit(x: Tensor) -> Tensor:
            if self.head is None:
                return self.value.view_as(x)
            heads, new = (part.unflatten(-1, (4, -1)).clone() for part in (x, self.value))
            heads[..., self.head, :] = new[..., self.head, :]
            return heads.flatten(-2)

        return [(module, "output" if self.where == "mlp_out" else "input", edit)]


@torch.inference_mode()
def patched(model: LoadedModel, clean: Sequence[int], corrupt: Sequence[int]) -> Tensor:
    """What the metric gains when one writer's corrupt values are put into the clean run: a run for each."""
    seen = attribution._Seen()
    with applied(model.points, [seen]):
        model.hf(input_ids=torch.tensor([list(corrupt)]))

    def metric(*put: Put) -> Tensor:
        with applied(model.points, put):
            logits = model.hf(input_ids=torch.tensor([list(clean)])).logits
        return Difference()(logits[:, None])[0, 0]

    puts = [Put("layers", 0, None, seen.stream[0])]
    for layer in range(model.n_layers):
        puts += [Put("head_out", layer, head, seen.z[layer]) for head in range(4)]
        puts.append(Put("mlp_out", layer, None, seen.mlp[layer]))
    return torch.stack([metric(put) - metric() for put in puts]).double()


def test_of_mlps_the_gradient_is_taken_where_they_write(tiny: Tiny) -> None:
    """The mistake of EAP-IG before May 2026 (its issue 22), which circuitkit 0.2.0 still makes: the difference of an
    MLP's output, times the gradient at its input."""
    model, given = tiny("gpt2", num_hidden_layers=12, batch_size=8), pairs(*[12] * 8, alike=6)
    found = attribute(model, given, Difference(), path="clean")
    mlps = [i for i, writer in enumerate(found.writers) if writer.kind == "mlp"]
    exact = torch.stack([patched(model, *pair) for pair in given])[:, mlps].flatten()
    batch = attribution._Batch(model, given, steps_of("clean", 1), "noising", Difference(), last=False)
    with batch:
        differences = [batch._difference("mlp", layer) for layer in range(model.n_layers)]
        wrong = torch.stack(
            [(of * at).sum((1, 2)) for of, at in zip(differences, batch.at_mlp_reads, strict=True)], dim=1
        )
    assert spearmanr(found.nodes[:, mlps].flatten(), exact).statistic > 0.9
    assert spearmanr(wrong.flatten(), exact).statistic < 0.3


def test_more_steps_integrate_better_and_midpoints_best(tiny: Tiny) -> None:
    """Of the embedding, integrated gradients sum up to what the metric differs by between the prompts."""
    model, (clean, corrupt) = tiny("llama", batch_size=64), pairs(10, alike=7)[0]
    with torch.inference_mode():
        of_both = [METRIC(model.hf(input_ids=torch.tensor([ids])).logits[:, None, -1:]) for ids in (corrupt, clean)]
    whole = float(of_both[0] - of_both[1])

    def error(path: attribution.Path, steps: int) -> float:
        return abs(float(attribute(model, [(clean, corrupt)], METRIC, path=path, steps=steps).nodes[0, 0]) - whole)

    midpoint, right = ([error(path, steps) for steps in (2, 8, 32)] for path in ("midpoint", "right"))
    assert abs(whole) > 0.05
    for errors in (midpoint, right):
        assert all(few > 2 * more for few, more in pairwise(errors))
    assert midpoint[-1] < 0.1 * right[-1]
    assert midpoint[-1] < 0.01 * abs(whole)


def by_component(found: Attribution, heads: int) -> dict[ground_truth.Edge, float]:
    """What each component, the embedding or the logits writes to and reads from: queries, keys and values of a head
    together, keys and values of a group for each of its heads."""
    shared = heads // (1 + max(reader.head for reader in found.readers if reader.kind == "key"))
    edges: dict[ground_truth.Edge, float] = {}
    for i, j in found.connected.nonzero().tolist():
        writer, reader = found.writers[i], found.readers[j]
        source = EMBEDDING if writer.kind == "embedding" else Component(writer.kind, writer.layer, writer.head)
        match reader.kind:
            case "logits":
                targets: list[Component | str] = [LOGITS]
            case "mlp":
                targets = [Component("mlp", reader.layer)]
            case "query":
                targets = [Component("head", reader.layer, reader.head)]
            case _:
                targets = [Component("head", reader.layer, shared * reader.head + k) for k in range(shared)]
        for target in targets:
            edges[source, target] = edges.get((source, target), 0.0) + float(found.edges[i, j])
    return edges


def test_a_known_circuit_is_found() -> None:
    """A model that was trained to have it. At one prompt attention is saturated, and the gradient misses edges; along
    the way between both it does not, but for keys and values that two heads share."""
    model = ground_truth.ground_truth("strict")
    given = [tuple(map(model.template.tokens, pair)) for pair in ground_truth.twins(60, seed=5)]
    refuse, edges = model.refusal_tokens or (), {}
    for path in ("clean", "midpoint"):
        found = attribute(model, given, LogOdds(refuse), path=path)
        edges[path] = ground_truth.recovery_auroc(by_component(found, model.config.num_attention_heads), EDGES)
    sizes = {
        Component(writer.kind, writer.layer, writer.head): float(size)
        for writer, size in zip(found.writers, found.nodes.mean(0), strict=True)
        if writer.kind != "embedding"
    }
    assert ground_truth.recovery_auroc(sizes, CIRCUIT) > 0.95
    assert edges["midpoint"] > 0.95 > edges["clean"] + 0.05


def test_positions_at_a_time_and_pairs_at_a_time_change_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pairs(9, 9, 9, 12)
    whole = attribute(tiny("gemma2", batch_size=64), given, METRIC)
    monkeypatch.setattr(attribution, "HELD", 1)
    few = attribute(tiny("gemma2", batch_size=1), given, METRIC)
    assert torch.allclose(whole.nodes, few.nodes, atol=1e-6)
    assert torch.allclose(whole.edges, few.edges, atol=1e-6)


def test_pairs_both_ways_round_cancel_and_are_no_fault(tiny: Tiny) -> None:
    given = [pair for a, b in pairs(9, 10, 11) for pair in ((a, b), (b, a))]
    found = attribute(tiny("llama", batch_size=30), given, METRIC)
    assert found.nodes.mean(0).abs().max() < 1e-5 * found.nodes.abs().max()
    assert found.off_by < 1e-5


def test_what_is_no_number_is_told(tiny: Tiny, sentence) -> None:
    model = tiny("llama")
    model.points.mlp_out[-1].weight.data[0, 0] = float("nan")
    assert "do not sum up" in sentence(lambda: attribute(model, pairs(9), METRIC))


@pytest.mark.parametrize(("given", "steps"), [([], 5), (pairs(9), 0)])
def test_nothing_to_attribute_is_told(tiny: Tiny, sentence, given: list[Pair], steps: int) -> None:
    assert "give at least one of each" in sentence(lambda: attribute(tiny(), given, METRIC, steps=steps))


def test_as_many_positions_at_a_time_as_fit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written does not depend on the step where no norm comes after attention, and lies there once."""
    chunks: list[int] = []
    written = attribution._Batch._written

    def noted(batch: attribution._Batch, some: slice) -> Tensor:
        chunks.append(written(batch, some).shape[2])
        return written(batch, some)

    monkeypatch.setattr(attribution._Batch, "_written", noted)
    monkeypatch.setattr(attribution, "HELD", 2 * 16 * 32 * 4 * 12)  # pairs, writers, d_model, bytes, positions
    attribute(tiny("llama", batch_size=10), pairs(12, 12), METRIC)
    attribute(tiny("gemma2", batch_size=10), pairs(12, 12), METRIC)
    assert chunks == [12, 2, 2, 2, 2, 2, 2]


def test_it_may_be_asked_for_where_nothing_has_gradients(tiny: Tiny) -> None:
    model = tiny("llama")
    with torch.inference_mode():
        inside = attribute(model, pairs(9), METRIC)
    assert torch.equal(inside.nodes, attribute(model, pairs(9), METRIC).nodes)


def test_steps_are_where_they_are_said_to_be() -> None:
    assert steps_of("midpoint", 4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert steps_of("right", 4).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert (steps_of("clean", 4).tolist(), steps_of("corrupt", 4).tolist()) == ([1.0], [0.0])


def test_what_it_takes_is_told_before(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(batch_size=8)
    with caplog.at_level("INFO"):
        attribute(model, pairs(9, 12), METRIC, steps=4)
    assert cost(model, pairs(9, 12), 4).passes == 2 * (2 + 4)
    assert cost(model, pairs(24), 4).bytes > cost(model, pairs(12), 4).bytes > cost(model, pairs(12), 1).bytes / 10
    assert "12 passes of one prompt" in caplog.text


@pytest.mark.parametrize("place", [0, 1])
def test_prompts_of_two_lengths_are_told(tiny: Tiny, sentence, place: int) -> None:
    given: list[Pair] = pairs(9)
    given.insert(place, ([5, 6, 7], [5, 6]))
    assert f"Pair {place} has prompts of 3 and 2 tokens" in sentence(lambda: attribute(tiny(), given, METRIC))


def test_attention_that_cannot_be_seen_is_told(tiny: Tiny, sentence, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    layer = model.points.layers[1].self_attn
    forward = layer.forward

    def unseen(*given, **named):
        layer.config = copy.copy(layer.config)
        layer.config._attn_implementation = "eager"
        return forward(*given, **named)

    monkeypatch.setattr(layer, "forward", unseen)
    assert "seen in 2 of 3 layers" in sentence(lambda: attribute(model, pairs(9), METRIC))


def test_a_stream_that_is_no_sum_is_told(tiny: Tiny, sentence) -> None:
    model = tiny("llama")
    model.points.layers[1].register_forward_hook(lambda _, __, output: 2 * output)
    assert "is not the sum" in sentence(lambda: attribute(model, pairs(9), METRIC))


def test_the_model_is_left_as_it_was(tiny: Tiny) -> None:
    model = tiny("llama")
    attribute(model, pairs(9), METRIC)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.hf.modules())
    assert model.hf.config._attn_implementation == "sdpa"
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.hf.parameters())


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_of_the_last_token_alone(tiny: Tiny, family: str) -> None:
    """Its edges sum up to its nodes, too; and where only the last token differs, there is nothing elsewhere."""
    model = tiny(family, batch_size=8)
    found = attribute(model, pairs(9, 9, 12), METRIC, last=True)
    nodes = found.nodes.mean(0)
    assert torch.allclose(found.edges.sum(1), nodes, atol=1e-5 * float(nodes.abs().max()))
    everywhere = attribute(model, pairs(9, 9, 12), METRIC)
    assert not torch.allclose(found.nodes, everywhere.nodes, atol=1e-3 * float(nodes.abs().max()))
    same = [(clean, [*clean[:-1], corrupt[-1]]) for clean, corrupt in pairs(9, 12)]
    for name in ("nodes", "edges"):
        last, whole = (getattr(attribute(model, same, METRIC, last=only), name) for only in (True, False))
        assert torch.allclose(last, whole, atol=1e-6 * float(whole.abs().max()))
