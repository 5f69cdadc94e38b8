"""Every fault that we plant is found by the check that is meant for it, and by no other; what has none is healthy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import nn

from rcm.checks import ALL, Patient, diagnoses, quickly_checked
from rcm.checks.end_of_instruction import end_of_instruction, pieces
from rcm.checks.noise import in_float32, noise
from rcm.checks.own_template import own_template
from rcm.errors import InputError
from rcm.execution import interventions
from rcm.execution import rows as by_rows
from rcm.execution.recording import ComponentCache
from rcm.models import LoadedModel, Template
from rcm.models.template import Batch, Lent
from tests.conftest import CHAT, tiny_model
from tests.execution.test_self_checks import SHAPES, Mixing, made
from tests.models.test_template import tokenizer
from tests.planted import planted_model, planted_prompts, thinking_model

PROMPTS = planted_prompts()
Plant = Callable[[pytest.MonkeyPatch], LoadedModel]


def patient(model: LoadedModel, n: int = 2, **given: Any) -> Patient:
    return Patient(model, PROMPTS.test.first(n), PROMPTS.paired, 0, **{"reply": 2, **given})


def test_every_family_is_healthy(family: str) -> None:
    found = list(diagnoses(ALL, patient(tiny_model(family))))
    assert {one.verdict for one in found} <= {"passed", "noted"}, found
    assert 0 < found[-1].figure < 1e-4, found[-1]  # the noise floor, in nats
    assert all(one.then or one.verdict == "passed" or one.check in ("refusal_tokens", "noise") for one in found)


def test_a_model_that_refuses_is_healthy_and_its_effects_lie_above_its_noise() -> None:
    found = {one.check: one for one in diagnoses(ALL, patient(planted_model(), 4))}
    assert {one.verdict for one in found.values() if one.check != "end_of_turn"} == {"passed"}
    assert "open with 'R' 100%" in found["refusal_tokens"].measured
    floor, limit = found["noise"].figure, found["noise"].limit
    assert floor is not None
    assert limit is not None
    assert floor < 1e-4 < 0.1 < limit  # in nats: rounding, and 2 % of a gap of tens


def test_logits_beyond_float16_are_called_that() -> None:
    model = tiny_model()
    model.hf.half().get_output_embeddings().weight.mul_(60000)
    found = next(one for one in diagnoses(ALL, patient(model)) if one.check == "padding")
    assert found.verdict == "failed"
    assert found.then.endswith("beyond what float16 holds; load it with model.dtype=bfloat16 or float32.")


def test_a_tokenizer_that_ends_every_text_is_found() -> None:
    model = tiny_model()
    ending = model.template.tokenizer
    assert end_of_instruction(patient(LoadedModel.of(model.hf, ending, "plain"))).verdict == "passed"
    end = (ending.eos_token, ending.eos_token_id)
    ending._tokenizer.post_processor = TemplateProcessing(single=f"$A {ending.eos_token}", special_tokens=[end])
    found = end_of_instruction(patient(LoadedModel.of(model.hf, ending, "plain")))
    assert found.verdict == "failed"
    assert "the last of which ends the text" in found.measured


def right_padding(patched: pytest.MonkeyPatch) -> LoadedModel:
    def padded(self: Template, rows: Sequence[Sequence[int]], device: Any = "cpu", beginning: int = 0) -> Batch:
        ids = torch.full((len(rows), max(map(len, rows))), self.pad)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
        return Batch(ids, mask)

    patched.setattr(Template, "padded", padded)
    return tiny_model()


def rows_that_mix(_: pytest.MonkeyPatch) -> LoadedModel:
    model = tiny_model()
    model.hf.model.norm = nn.Sequential(model.hf.model.norm, Mixing())
    return model


def looks_ahead(_: pytest.MonkeyPatch) -> LoadedModel:
    return made("gemma3_text", **SHAPES["gemma2"], use_bidirectional_attention=True)


def two_beginnings(_: pytest.MonkeyPatch) -> LoadedModel:
    return tiny_model(template="{{ bos_token }}" + CHAT)


def wrong_template(_: pytest.MonkeyPatch) -> LoadedModel:
    model = tiny_model()
    model.template.render("Hi")
    model.template.tokenizer.chat_template = CHAT.replace("[assistant]", "[model]")
    return model


def tokens_that_never_occur(_: pytest.MonkeyPatch) -> LoadedModel:
    model = planted_model()
    return replace(model, refusal_tokens=tuple(model.template.tokenizer("Rr")["input_ids"]))


def thinks(_: pytest.MonkeyPatch) -> LoadedModel:
    return thinking_model()


def a_stuck_hook(_: pytest.MonkeyPatch) -> LoadedModel:
    model = tiny_model()
    model.points.layers[1].register_forward_hook(lambda module, args, output: output)
    return model


def hooks_that_stay(patched: pytest.MonkeyPatch) -> LoadedModel:
    """As of a context manager that forgets its `finally`."""

    @contextmanager
    def applied(points: Any, given: Any) -> Iterator[Any]:
        sites = interventions.Applied(points, list(given))
        hooks = [
            interventions._hook(module, side, sites.edit(place)) for place, (module, side, _) in enumerate(sites.sites)
        ]
        yield sites
        for hook in hooks:
            hook.remove()

    patched.setattr("rcm.execution.shared_prefix.applied", applied)
    return tiny_model()


def an_attention_that_stays(patched: pytest.MonkeyPatch) -> LoadedModel:
    @contextmanager
    def attention(hf: Any, function: Any, name: str = by_rows.ATTENTION) -> Iterator[None]:
        before = hf.config._attn_implementation
        by_rows.ALL_ATTENTION_FUNCTIONS[name] = function
        hf.config._attn_implementation = name
        yield
        hf.config._attn_implementation = before

    patched.setattr(by_rows, "attention", attention)
    return tiny_model()


def shifted_layers(_: pytest.MonkeyPatch) -> LoadedModel:
    model = tiny_model()
    points = model.points
    object.__setattr__(model, "points", replace(points, layers=[*points.layers[1:], points.layers[0]]))
    return model


def rows_that_are_wrong(patched: pytest.MonkeyPatch) -> LoadedModel:
    patched_logits = by_rows.patched_logits
    patched.setattr(by_rows, "patched_logits", lambda *given, **more: patched_logits(*given, **more) * 1.1)
    return tiny_model()


def values_that_are_not_its_own(patched: pytest.MonkeyPatch) -> LoadedModel:
    at = ComponentCache.at

    def off(self: ComponentCache, position: int) -> Any:
        values = at(self, position)
        return values._replace(mlp=values.mlp * 1.1)

    patched.setattr(ComponentCache, "at", off)
    return tiny_model()


def another_bridge(_: pytest.MonkeyPatch) -> LoadedModel:
    """As of weights that were edited once the bridge was built."""
    model = tiny_model()
    assert model.bridge
    mlp = model.hf.model.layers[0].mlp
    mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight * 1.1, requires_grad=False)
    return model


TURNS = "<bos>{% for m in messages %}{{ m.content }}{{ '<turn>' if m.role == 'assistant' }}\n{% endfor %}[assistant]"


def a_turn_that_does_not_end(_: pytest.MonkeyPatch) -> LoadedModel:
    model = tiny_model(template=None, vocab_size=260)
    knowing = tokenizer(TURNS)
    knowing.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    return LoadedModel.of(model.hf, knowing, "chat", batch_size=3)


def effects_below_the_noise(_: pytest.MonkeyPatch) -> LoadedModel:
    """Log-odds of one nat or so beside logits of hundreds, in bfloat16."""
    model = planted_model()
    refuse, answer = (model.template.tokenizer(text)["input_ids"][0] for text in "RA")
    with torch.no_grad():
        unembedding = model.hf.get_output_embeddings().weight
        unembedding[[refuse, answer]] += 40.0 * unembedding[answer]
        unembedding[refuse, 1] = 0.6
    return LoadedModel.of(model.hf.bfloat16(), model.template.tokenizer, "chat", batch_size=16)


FAULTS: dict[str, tuple[Plant, str]] = {
    "right padding": (right_padding, "padding"),
    "rows that mix": (rows_that_mix, "padding"),
    "looks ahead": (looks_ahead, "causal"),
    "two beginnings": (two_beginnings, "beginning"),
    "wrong template": (wrong_template, "own_template"),
    "tokens that never occur": (tokens_that_never_occur, "refusal_tokens"),
    "thinks": (thinks, "thoughts"),
    "a stuck hook": (a_stuck_hook, "hooks"),
    "hooks that stay": (hooks_that_stay, "hooks"),
    "an attention that stays": (an_attention_that_stays, "hooks"),
    "shifted layers": (shifted_layers, "layers"),
    "wrong rows": (rows_that_are_wrong, "rows"),
    "values that are not its own": (values_that_are_not_its_own, "patched"),
    "another bridge": (another_bridge, "bridge"),
    "a turn that does not end": (a_turn_that_does_not_end, "end_of_turn"),
    "effects below the noise": (effects_below_the_noise, "noise"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_check_that_is_meant_for_it(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, check = FAULTS[fault]
    found = list(diagnoses(ALL, patient(plant(monkeypatch))))
    assert [one.check for one in found if one.verdict == "failed"] == [check], found
    (one,) = (one for one in found if one.check == check)
    assert one.then.endswith(".")
    assert ". " not in one.then


def test_without_sound_passes_none_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.check: one for one in diagnoses(ALL, patient(right_padding(monkeypatch)))}
    assert found["noise"].measured == "not tried, since padding failed"
    assert [one.verdict for one in found.values()].count("passed") == 3 + 2  # of the prompts; causal, and hooks
    assert found["noise"].verdict == found["bridge"].verdict == "not_tried"


def test_a_check_that_breaks_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("No adapter. And more.")

    monkeypatch.setattr(import_module("rcm.checks.bridge"), "plain_logits", broken)
    found = {one.check: one for one in diagnoses(ALL, patient(tiny_model()))}
    assert found["bridge"].verdict == "not_tried"
    assert found["bridge"].measured == "could not be made: RuntimeError: No adapter"


def test_models_that_end_an_instruction_otherwise_are_told() -> None:
    """Also where the tokens read alike."""
    model = tiny_model()
    own = pieces(model.template)
    assert end_of_instruction(patient(model, against=[("twin", own)])).verdict == "passed"
    joined = [*own[:-2], own[-2] + own[-1]]  # one token where ours are two
    for theirs, cure in (
        (own[:-1], "of:other"),
        ([*own[:-1], "\u2581"], "of:other"),
        (joined, "method.direction.positions=[-1]"),
    ):
        found = end_of_instruction(patient(model, against=[("twin", own), ("other", theirs)]))
        assert (found.verdict, found.figure) == ("failed", 1.0)
        assert f"those of other in {len(theirs)}" in found.measured
        assert cure in found.then


@pytest.mark.parametrize(
    ("chat", "wanted", "verdict", "told"),
    [
        (CHAT, "chat", "passed", "0 of 4 prompts"),
        (None, "chat", "passed", "has no chat template"),
        (CHAT, "plain", "noted", "although it has a chat template"),
        (None, Lent(CHAT, "twin"), "noted", "chat, of twin"),
        (CHAT, Lent(CHAT, "twin"), "passed", "0 of 4 prompts"),
        (CHAT, Lent(CHAT + "!", "twin"), "noted", "4 of 4 prompts are other tokens"),
        (CHAT + "<think>", "chat", "passed", "0 of 4 prompts"),
    ],
)
def test_what_was_asked_for_on_purpose_is_no_wrong_template(chat: Any, wanted: Any, verdict: str, told: str) -> None:
    model = tiny_model()
    found = own_template(patient(replace(model, template=Template.of(tokenizer(chat), wanted))))
    assert found.verdict == verdict
    assert told in found.measured


def test_reported_effects_below_the_floor_are_named() -> None:
    found = noise(patient(tiny_model(), reported=[("head 2.0", 3.0), ("head 1.1", -1e-12), ("mlp 1", 0.5)]))
    assert "1 of 3 reported effects lie below it (head 1.1 -1.0e-12)" in found.measured
    assert found.verdict == "failed"
    assert noise(patient(tiny_model(), reported=[("head 2.0", 3.0)])).verdict == "noted"


def test_a_copy_in_float32_is_made_where_it_is_another() -> None:
    """Which leaves the model as it is."""
    model = tiny_model()
    assert in_float32(model) is None
    half = LoadedModel.of(model.hf.bfloat16(), model.template.tokenizer, "chat")
    copied = in_float32(half)
    assert copied is not None
    assert {one.dtype for one in copied.parameters()} == {torch.float32}
    assert half.hf.dtype == torch.bfloat16
    assert "float32" in noise(patient(half)).measured


def test_every_run_makes_the_quick_checks_first_and_stops(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = quickly_checked(tiny_model(), PROMPTS, [40, 60], 0)
    assert [row[0] for row in told.rows][-5:] == [
        "beginning",
        "end of instruction",
        "own template",
        "hooks",
        "thoughts",
    ]
    for plant in (two_beginnings, a_stuck_hook, wrong_template, right_padding):
        with pytest.raises(InputError), monkeypatch.context() as patched:
            quickly_checked(plant(patched), PROMPTS, [40, 60], 0)
    assert not caplog.text
    quickly_checked(thinking_model(), PROMPTS, [40, 60], 0)  # its replies can be judged all the same
    assert "close its thoughts in the prompt with dataset.template=no_thinking" in caplog.text


@pytest.mark.parametrize(("template", "opens"), [("chat", "{{ '<think>\n' }}"), ("no_thinking", "")])
def test_a_model_that_thinks_is_healthy_once_its_thoughts_are_closed(template: Any, opens: str) -> None:
    """And its first tokens are those of its answers."""
    model = thinking_model(template, opens)
    found = {one.check: one for one in diagnoses(ALL, patient(model))}
    assert {one.verdict for one in found.values()} == {"passed", "noted"}
    assert "its thoughts being closed in the prompt" in found["thoughts"].measured
    assert "the refusal tokens ('R') have 100% of it there" in found["refusal_tokens"].measured
