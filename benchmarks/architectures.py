"""Which of transformers' causal language models can be measured, by which way, and why the others cannot.

    python -m benchmarks.architectures > docs/architectures.md

Of every architecture that transformers lists as a causal language model, a tiny one with random weights is built: its
own default config with every size cut. It is then refused in one sentence, before it has weights, or it is measured:

    alone       the logits of a prompt in a padded batch are those of the prompt alone
    beginning   whether what every prompt begins with is read once (`rcm.execution.self_checks.may_share`)
    replies     under a vector for each row they are those of each row alone
    patching    all components in one pass (`rows`), or one pass for each (`loop`), with the reason

An architecture that cannot be cut to size says nothing of its real checkpoints: they meet the same checks.
"""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from rcm.errors import InputError, first_sentence
from rcm.execution.components import COMPONENT_KINDS, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import Engine, engine_of
from rcm.execution.interventions import Add
from rcm.execution.metric import LogOdds
from rcm.execution.passes import last_logits
from rcm.execution.recording import cache_components
from rcm.execution.self_checks import may_share
from rcm.models import LoadedModel
from rcm.models.checkpoint import check_architecture
from rcm.models.random import byte_tokenizer

RUNS, REFUSED, NOT_BUILT = "runs", "refused", "not built"
PROMPTS = ("Hi", "How do I bake a loaf of bread?", "Name a river, then a lake, and say a little about both of them.")
CHAT = "<bos>{% for m in messages %}[{{ m.role }}] {{ m.content }} [/]\n{% endfor %}[assistant] "
LAYERS, HEADS = 4, 4
# Sizes by the names that configs give them. What a config calls otherwise keeps its default.
SIZES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "mlp_hidden_size", "shared_intermediate_size"), 64),
    **dict.fromkeys(("head_dim", "global_head_dim", "d_kv", "kv_channels", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "attention_head_dim", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "index_head_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "moe_top_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_intermediate_size"), 16),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "num_expert_groups", "num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "mlp_only_layers_count"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), 512),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "mamba_d_head", "mamba_head_dim", "lightning_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_num_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "local_attention_window"), 512),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size", "n_vocab"), 259),
    **dict.fromkeys(("expand", "mamba_expand", "num_hash_heads"), 1),
    "num_kv_shared_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Fields that a default config lacks, or that have to fit each other.
SPECIAL: Mapping[str, dict[str, Any]] = {
    "bert": {"is_decoder": True},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "reformer": {"is_decoder": True},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_d_head": 8, "mamba_n_heads": HEADS},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
}


@dataclass(frozen=True)
class Examined:
    """`error`: the largest difference of a logit in a batch from that of the prompt alone, as a share of the largest
    logit; `way`: of patching."""

    architecture: str
    outcome: str
    why: str = ""
    error: float | None = None
    beginning: bool | None = None
    replies: bool | None = None
    way: str = ""
    exact: bool | None = None

    @property
    def row(self) -> str:
        """Of the table of those that run, in Markdown."""
        yes = {True: "yes", False: "no", None: ""}
        cells = (self.architecture, f"{self.error:.0e}", yes[self.beginning], yes[self.replies], self.way, self.why)
        return f"| {' | '.join(cells)} |"

    @property
    def reason(self) -> str:
        """Why not, without what is particular to this one."""
        names = rf"\b{re.escape(self.architecture)}\b|\b[A-Za-z]\w*(?:For[A-Z]\w+|Decoder|LMHeadModel)\b"
        return re.sub(names, "...", self.why)


def architectures() -> list[str]:
    """The model types of all causal language models that this transformers knows."""
    return sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING})


UNSAID = ("head_dim", "num_key_value_heads")  # what some defaults leave open and their models need


def tiny_config(architecture: str) -> PretrainedConfig:
    """Its default config, with every size cut."""
    kind = CONFIG_MAPPING[architecture]
    default = kind()
    cut = _cut(default) | SPECIAL.get(architecture, {})
    try:
        check_architecture(kind(**cut), architecture)
    except TypeError:  # numbers and None
        cut |= {name: SIZES[name] for name in UNSAID if getattr(default, name, 0) is None}
    except InputError:
        pass
    return kind(**cut)


def _cut(config: PretrainedConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            fields[name] = type(value)(**_cut(value))
        elif name == "num_key_value_heads" and value == config.num_attention_heads:
            fields[name] = HEADS  # where every head has keys of its own, it may have to
        elif name == "num_kv_shared_layers" and not value:
            continue
        elif name == "layer_types" and isinstance(value, list):
            kinds = list(dict.fromkeys(value))
            fields[name] = [kinds[i % len(kinds)] for i in range(LAYERS)]
        elif name in SIZES and (value is not None or name.endswith("token_id")):
            fields[name] = SIZES[name]
    fields |= {alias: SIZES[alias] for alias in config.attribute_map if alias in SIZES}
    return fields


def tiny_model(config: PretrainedConfig) -> LoadedModel:
    """With random weights that are loud enough for attention to look somewhere."""
    torch.manual_seed(0)
    hf = cast(PreTrainedModel, AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    return LoadedModel.of(hf, tokenizer, "chat", batch_size=len(PROMPTS), identity={"name": config.model_type})


def examined(architecture: str) -> Examined:
    """A tiny model of it, refused or measured."""
    try:
        config = tiny_config(architecture)
    except Exception as error:  # a benchmark may say what broke; nothing is measured here
        return Examined(architecture, NOT_BUILT, _reason(error))
    try:
        check_architecture(config, architecture)
    except InputError as refused:
        return Examined(architecture, REFUSED, str(refused))
    except Exception as error:
        return Examined(architecture, NOT_BUILT, _reason(error))
    model = tiny_model(config)
    try:
        beginning = may_share(model, [len(model.template.tokens(prompt)) for prompt in PROMPTS])
    except InputError as refused:
        return Examined(architecture, REFUSED, str(refused))
    engine, exact = _patched(model)
    return Examined(
        architecture,
        RUNS,
        engine.reason if engine.path == "loop" else "",
        _error(model),
        beginning,
        _replies_are_those_of_each(model),
        engine.path,
        exact,
    )


@torch.inference_mode()
def _error(model: LoadedModel) -> float:
    tokens = (torch.tensor([model.template.tokens(prompt)]) for prompt in PROMPTS)
    alone = torch.cat([model.hf(input_ids=one).logits[:, -1] for one in tokens])
    return ((last_logits(model, PROMPTS) - alone).abs().max() / alone.abs().max()).item()


def _replies_are_those_of_each(model: LoadedModel) -> bool:
    rows = [prompt for prompt in PROMPTS for _ in range(2)]
    vectors = torch.randn(len(rows), model.d_model)
    together = reply_tokens(model, rows, 3, [Add(1, vectors)])
    return together == [reply_tokens(model, [row], 3, [Add(1, vectors[[i]])])[0] for i, row in enumerate(rows)]


def _patched(model: LoadedModel) -> tuple[Engine, bool]:
    """The engine, and whether what it patches is what the slow loop patches, for every component by itself."""
    tokens = [model.template.tokens(prompt) for prompt in PROMPTS[:2]]
    base, source = cache_components(model, tokens, tail=2), cache_components(model, tokens[::-1], tail=2)
    engine = engine_of(model, base, source, seed=0)
    patches = Rows.of([[one] for one in base.shape.components(COMPONENT_KINDS)], base.shape)
    donors = [base.at(-1), source.at(-1)]
    slow = Engine(model, "loop", "", None)
    found, wanted = (one.measure(base, donors, patches, LogOdds((40,))) for one in (engine, slow))
    return engine, bool((found - wanted).abs().max() <= 1e-4 * wanted.abs().max())


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_sentence(error)}".replace("|", "/").replace("\n", " ")[:200]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", default=architectures(), help="model types")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = []
    for architecture in parser.parse_args().only:
        rows.append(examined(architecture))
        print(architecture, rows[-1].outcome, rows[-1].why, file=sys.stderr, flush=True)
    of = {outcome: [one for one in rows if one.outcome == outcome] for outcome in (RUNS, REFUSED, NOT_BUILT)}
    print(f"# The {len(rows)} causal language models of transformers {transformers.__version__}\n")
    print("Written by `python -m benchmarks.architectures`, on a tiny model of each (what it checks: its docstring).")
    print(f"{', '.join(f'{len(some)} {outcome}' for outcome, some in of.items())}.\n\n## Measured\n")
    print("| architecture | logits in a batch off by | beginning shared | replies alike | patching | why by the loop |")
    print("|---|---|---|---|---|---|")
    print("\n".join(one.row for one in of[RUNS]))
    for title, some in (("Refused, before anything is measured", of[REFUSED]), ("Not built this small", of[NOT_BUILT])):
        print(f"\n## {title}\n")
        for reason, n in Counter(one.reason for one in some).most_common():
            print(f"- {', '.join(one.architecture for one in some if one.reason == reason)} ({n}): {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
