"""The packaged models do what their card says, and swaps are what patching calls interchange."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rcm.circuits.ground_truth import (
    ALL_EDGES,
    ALL_FACTS,
    ANSWER,
    CIRCUIT,
    CLASS_A,
    CLASS_B,
    DECIDE,
    DETECT_A,
    DETECT_B,
    EDGES,
    KINDS,
    LOGITS,
    MATTERS,
    NODES,
    REFUSE,
    SHAPE,
    Facts,
    Name,
    Recorded,
    decision_changes,
    decisions,
    edge_changes,
    ground_truth,
    last_logits,
    measured_circuit,
    prompt_with,
    recovery_auroc,
    refused,
    strangers,
    swapped_logits,
    twins,
)
from rcm.execution import loop
from rcm.execution.components import Component, Rows
from rcm.execution.decoding import replies
from rcm.execution.engine import engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.execution.rows import hooked
from rcm.models import LoadedModel
from rcm.packaged import ASSETS
from rcm.patching.interchange import interchange

FRESH = 5  # a seed that nothing was trained or scored with
OTHERS = [node for node in NODES if node not in CIRCUIT]


@cache
def model(name: Name) -> LoadedModel:
    return ground_truth(name)


def exact(name: Name, pairs: int = 100) -> dict[Component, float]:
    """Shares of the gap by the row engine, at the last token."""
    circuit = model(name)
    tokens = [tuple(circuit.template.tokens(prompt) for prompt in pair) for pair in twins(pairs, FRESH)]
    base, source = (cache_components(circuit, side) for side in zip(*tokens[:8], strict=True))
    engine = engine_of(circuit, base, source, seed=0)
    assert engine.path == "rows"
    found = interchange(engine, tokens, Rows.each(KINDS, SHAPE), LogOdds(circuit.refusal_tokens))
    return dict(zip(NODES, found.shares.mean((0, 1)).tolist(), strict=True))


@pytest.mark.parametrize("ours", ALL_FACTS)
@given(length=st.integers(6, 24), seed=st.integers(0, 10**6))
def test_a_prompt_has_the_facts_that_it_was_drawn_with(ours: Facts, length: int, seed: int) -> None:
    prompt = prompt_with(ours, length, random.Random(seed))
    assert len(prompt) == length
    assert Facts.of(prompt) == ours
    assert refused(ours, ours) == (any(one in CLASS_A for one in prompt) and not any(one in CLASS_B for one in prompt))


def test_twins_differ_by_one_class_and_strangers_by_their_facts() -> None:
    for i, (harmful, harmless) in enumerate(twins(40, FRESH)):
        assert Facts.of(harmful) == (True, False)
        assert Facts.of(harmless) == ((True, True) if i % 2 else (False, False))
        changed = [(a, b) for a, b in zip(harmful, harmless, strict=True) if a != b]
        assert 1 <= len(changed) <= 3
        assert all(b in CLASS_B if i % 2 else a in CLASS_A for a, b in changed)
    pairs = strangers(200, FRESH)
    assert all(len(ours) == len(theirs) and Facts.of(ours) != Facts.of(theirs) for ours, theirs in pairs)
    assert {Facts.of(ours) for ours, _ in pairs} == {Facts.of(theirs) for _, theirs in pairs} == set(ALL_FACTS)


@pytest.mark.parametrize("name", ["strict", "task"])
def test_fresh_prompts_are_decided_as_the_program_says(name: Name) -> None:
    pairs = strangers(600, FRESH)
    said = torch.tensor([refused(Facts.of(ours), Facts.of(ours)) for ours, _ in pairs])
    assert 0.2 < said.double().mean() < 0.3
    found = decisions(model(name), swapped_logits(model(name), pairs, [()])[0])
    assert (found == said).double().mean() >= 0.99
    # Greedy replies are one of the two, whole, and then the model is silent.
    asked = [ours for ours, _ in pairs[:40]]
    assert replies(model(name), asked, 4, label="") == [REFUSE if one else ANSWER for one in said[:40]]


def test_the_nodes_of_the_circuit_swap_as_the_program_says() -> None:
    pairs = strangers(400, FRESH)
    held = [(Facts.of(ours), Facts.of(theirs)) for ours, theirs in pairs]
    plain = torch.tensor([refused(ours, ours) for ours, _ in held])
    program = {
        (DETECT_A,): [refused(theirs, ours) for ours, theirs in held],
        (DETECT_B,): [refused(ours, theirs) for ours, theirs in held],
        (DETECT_A, DETECT_B): [refused(theirs, theirs) for _, theirs in held],
        (DECIDE,): [refused(ours, ours, theirs) for ours, theirs in held],
        (DETECT_A, DECIDE): [refused(theirs, ours, theirs) for ours, theirs in held],
    }
    logits = swapped_logits(model("strict"), pairs, list(program))
    for found, said in zip(decisions(model("strict"), logits), map(torch.tensor, program.values()), strict=True):
        assert (said != plain).sum() > 80, "a program that changes nothing would be easy to follow"
        assert (found == said)[said != plain].double().mean() >= 0.98
        assert (found == said)[said == plain].double().mean() >= 0.98


@pytest.mark.parametrize("where", ["last", "all"])
def test_no_other_node_changes_a_decision_nor_do_all_of_them(where: str) -> None:
    pairs = strangers(300, FRESH)
    changes = dict(zip(NODES, decision_changes(model("strict"), pairs, where).tolist(), strict=True))
    assert max(changes[node] for node in OTHERS) <= 0.01
    assert min(changes[node] for node in CIRCUIT) > 0.2
    together, plain = decisions(model("strict"), swapped_logits(model("strict"), pairs, [OTHERS, ()], where))
    assert (together != plain).double().mean() <= 0.02


def test_before_the_last_token_nothing_matters() -> None:
    """So patching the last token sees all of the circuit: swapped at all tokens it does what it does at the last."""
    pairs = strangers(200, FRESH)
    last, everywhere = (
        decisions(model("strict"), swapped_logits(model("strict"), pairs, [(node,) for node in CIRCUIT], where))
        for where in ("last", "all")
    )
    assert (last != everywhere).double().mean() <= 0.01


def test_the_edges_are_those_that_are_told() -> None:
    """Each alone changes decisions, and no other does, of all that there can be."""
    assert len(ALL_EDGES) == len(set(ALL_EDGES)) == 207
    assert set(EDGES) < set(ALL_EDGES)
    changes = dict(zip(ALL_EDGES, edge_changes(model("strict"), strangers(48, FRESH)).tolist(), strict=True))
    assert min(changes[edge] for edge in EDGES) > 0.2
    assert max(change for edge, change in changes.items() if edge not in EDGES) <= 0.02
    assert recovery_auroc(changes, EDGES) == 1


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (Component("head", 0, 0), Component("mlp", 0)),
        (Component("head", 0, 2), Component("mlp", 0)),
        (Component("head", 0, 0), LOGITS),
        (Component("mlp", 0), Component("mlp", 1)),
        (Component("mlp", 0), LOGITS),
    ],
    ids=str,
)
def test_an_edge_is_what_its_reader_reads_otherwise(writer: Component, reader: Component | str) -> None:
    """Beside what is written, less what was written, added to what the reader alone gets, in front of its norm."""
    circuit, pairs = model("task"), strangers(100, FRESH)
    batches = [circuit.template.batch(side) for side in zip(*pairs, strict=True)]
    written = []
    for batch in batches:
        last_logits(circuit, batch, [recorded := Recorded()])
        if writer.kind == "mlp":
            written.append(recorded.outputs.mlps[writer.layer])
        else:
            weight = circuit.points.head_out[writer.layer].weight.unflatten(1, (SHAPE.heads, -1))[:, writer.number]
            written.append(recorded.outputs.heads[writer.layer, :, :, writer.number] @ weight.T)
    body = circuit.hf.model
    norm = body.layers[reader.layer].post_attention_layernorm if isinstance(reader, Component) else body.norm
    with hooked(norm.register_forward_pre_hook(lambda _, args: (args[0] + written[1] - written[0],))):
        patched = decisions(circuit, last_logits(circuit, batches[0]))
    plain = decisions(circuit, last_logits(circuit, batches[0]))
    (change,) = edge_changes(circuit, pairs, [(writer, reader)])
    assert change == (patched != plain).double().mean()
    if writer == Component("head", 0, 0) and reader == Component("mlp", 0):
        assert change > 0.2, "or else nothing agrees with nothing"


def test_exact_patching_finds_the_circuit_and_random_scores_do_not() -> None:
    shares = exact("strict")
    assert recovery_auroc(shares, CIRCUIT) >= 0.95
    assert sorted(NODES, key=lambda node: -abs(shares[node]))[0] == DECIDE
    assert shares[DECIDE] == pytest.approx(1, abs=0.02)
    # Of the pairs one half differs by A and the other by B.
    assert [shares[DETECT_A], shares[DETECT_B]] == pytest.approx([0.5, 0.5], abs=0.05)
    assert max(abs(shares[node]) for node in OTHERS) < 0.02
    draw = np.random.default_rng(0)
    random_scores = (dict(zip(NODES, draw.random(len(NODES)).tolist(), strict=True)) for _ in range(1000))
    assert np.mean([recovery_auroc(scores, CIRCUIT) for scores in random_scores]) == pytest.approx(0.5, abs=0.03)


def test_exact_patching_finds_what_matters_in_a_model_trained_on_the_task_alone() -> None:
    true = measured_circuit(model("task"), strangers(160, FRESH))
    assert 1 < len(true) < len(NODES) / 2
    assert not {DETECT_A, DETECT_B} <= set(true), "it would be the circuit that the other was trained to have"
    assert recovery_auroc(exact("task"), true) >= 0.95


def test_what_was_measured_to_matter_is_the_circuit() -> None:
    """It is that of the strict model, found without knowing it; and what it leaves out of the other does nothing."""
    pairs = strangers(160, FRESH)
    assert measured_circuit(model("strict"), pairs) == CIRCUIT
    true = measured_circuit(model("task"), pairs)
    rest = [node for node in NODES if node not in true]
    without, plain = decisions(model("task"), swapped_logits(model("task"), pairs, [rest, ()]))
    assert (without != plain).double().mean() <= MATTERS
    # Alone, nodes that stand in for each other change nothing: without the random others it would leave some out.
    changes = decision_changes(model("task"), pairs)
    alone = [node for node, change in zip(NODES, changes.tolist(), strict=True) if change > MATTERS]
    rest = [node for node in NODES if node not in alone]
    without, plain = decisions(model("task"), swapped_logits(model("task"), pairs, [rest, ()]))
    assert (without != plain).double().mean() > 0.3


@pytest.mark.parametrize("name", ["strict", "task"])
def test_swaps_are_what_the_slow_loop_patches(name: Name) -> None:
    """The one is written for gradients and for all tokens, the other for any model."""
    circuit, pairs = model(name), strangers(24, FRESH)
    sets = [(), (DETECT_A,), (DECIDE,), (Component("head", 0, 0), Component("head", 2, 3), Component("mlp", 0)), NODES]
    base, source = (
        cache_components(circuit, [circuit.template.tokens(prompt) for prompt in side])
        for side in zip(*pairs, strict=True)
    )
    slow = loop.patched_logits(circuit, base, [base.at(-1), source.at(-1)], Rows.of(sets, SHAPE))[:, :, 0]
    ours = swapped_logits(circuit, pairs, sets).transpose(0, 1)
    assert (slow - ours).abs().max() < 1e-4
    assert (slow[:, -1] - slow[:, 0]).abs().max() > 1, "or else nothing was swapped"


def test_everything_swapped_at_all_tokens_is_the_other_prompt() -> None:
    pairs = strangers(24, FRESH)
    # But for the embedding of the last token, which all prompts have, the last token reads nodes alone.
    swapped = swapped_logits(model("task"), pairs, [NODES], "all")[0]
    theirs = swapped_logits(model("task"), [(there, here) for here, there in pairs], [()])[0]
    assert torch.allclose(swapped, theirs, atol=1e-4)


def test_auroc_needs_a_score_for_every_part(sentence) -> None:
    scores: dict[Component, float] = {node: float(node in CIRCUIT) for node in NODES}
    assert recovery_auroc(scores, CIRCUIT) == 1
    assert recovery_auroc({node: -score for node, score in scores.items()}, CIRCUIT) == 1
    assert "2 of the 3 parts" in sentence(lambda: recovery_auroc(dict.fromkeys(NODES[:-3], 1.0), CIRCUIT))
    assert "0 others" in sentence(lambda: recovery_auroc(dict.fromkeys(CIRCUIT, 1.0), CIRCUIT))


def test_prompts_of_two_lengths_cannot_be_swapped(sentence) -> None:
    assert "'abc' and 'ab' differ" in sentence(lambda: swapped_logits(model("strict"), [("abc", "ab")], [()]))


def test_all_of_it_is_small() -> None:
    assert sum(file.stat().st_size for file in (ASSETS / "ground-truth").rglob("*") if file.is_file()) < 2**20
