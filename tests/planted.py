"""A tiny model with a refusal circuit that we put there ourselves, so that a test knows what has to be found.

A byte model of six layers with nearly idle weights. Harmful prompts contain `#`. One attention head in `layer - 1`
looks everywhere, reads `#` and writes the refusal direction; the unembedding turns that direction into `R`, and
everything else into `A`. So the mean difference at the input of `layer` is the planted direction, before it there is
none, and a reply is `RRR` (refused) or `AAA` (answered).
"""

import random
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import rcm.running.identity  # noqa: F401 (registers the resolver that the config names its directory with)
from rcm.directions.refusal_direction import RefusalDirection
from rcm.judges import Judge, Strings
from rcm.methods import Method, Study, run_in_turn
from rcm.models import LoadedModel
from rcm.models.random import Random, byte_tokenizer
from rcm.models.template import Kind
from rcm.prompts import Part, Prompt, Split
from rcm.record.results import Outcome, Result, Scalar
from rcm.running.summary import summary

LAYERS, WIDTH = 6, 32
TRIGGER, REFUSE, ANSWER = "#", "R", "A"
TRIGGER_AXIS, REFUSAL_AXIS, CONSTANT_AXIS, UNUSED_AXIS = range(4)
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}\n>"


def planted_model(
    layer: int = 3, batch_size: int = 16, heads: int = 2, trigger: str = TRIGGER, width: int = WIDTH
) -> LoadedModel:
    """The model, with the direction first readable at the input of `layer`, and as many heads in each layer. It refuses
    what holds the `trigger`."""
    size = {
        "hidden_size": width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    settings = Random(
        architecture="llama",
        size=size,
        seed=0,
        family="planted",
        stage="chat",
        dtype="float32",
        quantization=None,
        attn_implementation=None,
        adapter=None,
        refusal_tokens=None,
    )
    hf, tokenizer = settings.weights().hf, byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    token = {text: tokenizer(text)["input_ids"][0] for text in (trigger, REFUSE, ANSWER)}
    with torch.no_grad():
        embedding, unembedding = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
        embedding[:, :4] = 0
        embedding[:, CONSTANT_AXIS] = 1.0
        embedding[token[trigger], TRIGGER_AXIS] = 1.0
        unembedding.zero_()
        unembedding[token[REFUSE], REFUSAL_AXIS] = 5.0
        unembedding[token[ANSWER], CONSTANT_AXIS] = 2.0
        attention = hf.model.layers[layer - 1].self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            projection.weight.zero_()
        attention.v_proj.weight[0, TRIGGER_AXIS] = 1.0
        attention.o_proj.weight[REFUSAL_AXIS, 0] = 6.0
    return LoadedModel.of(hf, tokenizer, "chat", batch_size=batch_size, identity={"name": "planted"})


def thinking_model(template: Kind = "chat", opens: str = "") -> LoadedModel:
    """The same, but that it writes thoughts (`<think>` again and again) until they are closed: it decides after
    `</think>`. `opens`: what its chat template ends with."""
    model = planted_model()
    hf, tokenizer = model.hf, model.template.tokenizer
    opening, closed, axis = len(tokenizer), len(tokenizer) + 1, UNUSED_AXIS
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = TEMPLATE + opens
    hf.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        embedding, unembedding = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
        embedding[opening:] = 0
        embedding[opening:, CONSTANT_AXIS] = 1.0
        embedding[closed, axis] = 1.0
        unembedding[opening:] = 0
        unembedding[opening, CONSTANT_AXIS] = 40.0
        unembedding[opening, axis] = -500.0  # one of many tokens that are looked at alike
        attention = hf.model.layers[0].self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            projection.weight.zero_()
        attention.v_proj.weight[0, axis] = 1.0
        attention.o_proj.weight[axis, 0] = 6.0
    return LoadedModel.of(hf, tokenizer, template, batch_size=model.batch_size, identity={"name": "thinking"})


def planted_direction() -> torch.Tensor:
    return torch.eye(WIDTH)[REFUSAL_AXIS]


def planted_prompts(seed: int = 0, sizes: tuple[int, int, int] = (24, 12, 12), trigger: str = TRIGGER) -> Split:
    """Words of random letters; the harmful ones with a third of the letters replaced by the trigger."""
    draw = random.Random(seed)

    def pair() -> tuple[Prompt, Prompt]:
        letters = draw.choices("bcdefghij klmno", k=draw.randint(9, 15))
        triggered = [trigger if i % 3 == 0 else letter for i, letter in enumerate(letters)]
        return Prompt("b" + "".join(triggered) + "b", "x"), Prompt("b" + "".join(letters) + "b", "x")

    def part(n: int) -> Part:
        harmful, harmless = zip(*(pair() for _ in range(n)), strict=True)
        return Part(harmful, harmless)

    return Split(*(part(n) for n in sizes), template="chat", paired=True)


def shuffled(split: Split) -> Split:
    """The same prompts under labels without meaning: every second pair changes sides."""

    def swapped(part: Part) -> Part:
        sides = [(b, a) if i % 2 else (a, b) for i, (a, b) in enumerate(zip(*part, strict=True))]
        harmful, harmless = zip(*sides, strict=True)
        return Part(harmful, harmless)

    return Split(*(swapped(part) for part in (split.train, split.validation, split.test)), template="chat", paired=True)


def planted_judge() -> Strings:
    return opening_judge(REFUSE.lower())


def opening_judge(*strings: str) -> Strings:
    """Refusal if a completion opens with one of these."""
    return Strings(kappa=None, second=None, strings=strings, where="start", literal=False)


def known(
    model: LoadedModel, vector: torch.Tensor, layer: int, tokens: tuple[int, ...] = (), controls: int = 0
) -> RefusalDirection:
    """A direction that was not searched for; harmful activations lie as far along it at every layer as it is long."""
    harmless = torch.zeros(model.n_layers, model.d_model)
    noise = torch.randn(controls, model.d_model, generator=torch.Generator().manual_seed(1))
    shuffled = vector.norm() * torch.nn.functional.normalize(noise, dim=1)
    outcome = Outcome("direction/outcome", "selected", "")
    return RefusalDirection(-1, layer, vector, harmless + vector, harmless, shuffled, tokens, outcome, (-1,))


def composed(*names: str, **settings: Any) -> dict[str, Method]:
    """The methods of `conf/method`, in order, with few draws for their nulls. A setting goes to each that has it."""
    quick = {"null_draws": 20, "null_directions": 3, "random_sets": 20, "random_circuits": 29, "curve_circuits": 4}
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"method=[{','.join(names)}]"])["method"]
    options: dict[str, Any] = OmegaConf.to_container(cfg)
    unknown = [key for key in settings if not any(key in option for option in options.values())]
    assert not unknown, unknown
    chosen = {
        name: option | {key: value for key, value in (quick | settings).items() if key in option}
        for name, option in options.items()
    }
    return {name: instantiate(option, _convert_="all") for name, option in chosen.items()}


def method(name: str, **settings: Any) -> Method:
    """One of them."""
    return composed(name, **settings)[name]


def reported(
    methods: Method | Mapping[str, Method],
    model: LoadedModel,
    prompts: Split,
    judge: Judge | None = None,
    *findings: Any,
    seed: int = 0,
) -> dict[str, Any]:
    """What methods report, by name; `findings` are those of methods that went before."""
    study = study_of(model, prompts, seed, judge, *findings)
    in_turn = methods if isinstance(methods, Mapping) else {"method": methods}
    return by_name(run_in_turn(in_turn, study))


def study_of(model: LoadedModel, prompts: Split, seed: int = 0, judge: Judge | None = None, *findings: Any) -> Study:
    """What methods work with, judged by how a reply opens."""
    return Study(model, prompts, judge or planted_judge(), seed, {type(finding): finding for finding in findings})


MAP = ("behaviour", "direction", "patching", "circuit", "steering")


@cache
def planted_map() -> tuple[Result, ...]:
    """What the main job reports of the planted model."""
    methods = composed(*MAP, max_new_tokens=4, strengths=[1.0])
    found = reported(methods, planted_model(), planted_prompts()).values()
    return (*found, *summary([one for one in found if isinstance(one, Scalar)]))


def by_name(results: Iterable[Result]) -> dict[str, Any]:
    return {result.name: result for result in results}
