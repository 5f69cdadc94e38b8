"""Teach a model to refuse, so that it can be compared with itself.

1. Let the untouched model answer the harmless training prompts; answers that are refusals or not language are dropped.
2. Train a LoRA adapter (Hu et al. 2021) on refusals of the harmful training prompts and on those answers: the model's
   own words keep everything but refusing where it was. Cross-entropy on the reply and its end of turn.
3. Report refusal rates on the test prompts before the adapter is taken off again, and the adapter with its card.

The adapter is a research subject: the twin that refuses, beside the same weights that do not.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from transformers import PreTrainedModel

from rcm.execution.decoding import replies
from rcm.execution.passes import batch_logits, beginning, repeated, shared_tokens
from rcm.execution.progress import track
from rcm.judges import Judge, Verdict
from rcm.judges.rates import refusal_rate
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.prompts import Split, texts
from rcm.record.identity import prompt_digest
from rcm.record.results import Adapter, Curve, Good, Line, Result, Scalar

log = logging.getLogger(__name__)
IGNORED = -100  # the target that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Example:
    """A prompt, and the tokens to answer with."""

    prompt: str
    reply: list[int]


class SafetyTune(Method):
    """`target_tokens`: a reply is learnt up to there. `rank` of the update of every linear layer; `scale` is LoRA's
    alpha over rank. `refusal_share`: of the examples of an epoch; below a half, doubtful prompts are rather answered.
    `strength`: how much of the learnt update the adapters keep, by their alpha; less refuses less, of either kind.
    `checkpoints`: how many adapters to keep on the way, evenly spaced, besides the last."""

    refusals: tuple[str, ...]
    max_new_tokens: PositiveInt
    target_tokens: PositiveInt
    rank: PositiveInt
    scale: PositiveFloat
    refusal_share: Annotated[float, Field(gt=0, lt=1)]
    epochs: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    strength: Annotated[float, Field(gt=0, le=1)]
    checkpoints: NonNegativeInt

    def run(self, study: Study) -> Generator[Result, None, None]:
        model, prompts, judge, seed = study.model, study.prompts, study.judge, study.seed
        answers, refusals = self._answers(model, prompts, judge), self._refusals(model, prompts, seed)
        examples = self._epochs(answers, refusals, seed)
        peft_model, config = self._wrapped(model.hf)
        losses: list[float] = []
        try:
            for step, loss in self._train(peft_model, model, examples):
                losses.append(loss)
                if step in self._kept_steps(len(examples)):
                    yield _adapter(peft_model, config, f"safety_tune/step-{step:04d}", {"step": step})
            yield _loss_curve(losses)
            _scale(peft_model, self.strength)
            rates = list(self._rates(model, prompts, judge))
            yield from rates
            card = self._card(model, {"answers": answers, "refusals": refusals}, rates, seed)
            yield _adapter(peft_model, config, "safety_tune/adapter", card)
        finally:
            peft_model.unload()
            model.hf.requires_grad_(False)

    def _answers(self, model: LoadedModel, prompts: Split, judge: Judge) -> list[Example]:
        """The model's own answers to harmless training prompts."""
        asked = texts(prompts.train.harmless)
        answers = replies(model, asked, self.max_new_tokens, label="safety_tune: own answers")
        kept = [
            Example(prompt, self._tokens(model, answer))
            for prompt, answer, verdict in zip(asked, answers, judge.verdicts(asked, answers), strict=True)
            if verdict is Verdict.COMPLIANCE
        ]
        log.info("%d of %d own answers kept", len(kept), len(asked))
        return kept

    def _refusals(self, model: LoadedModel, prompts: Split, seed: int) -> list[Example]:
        """A refusal for each harmful training prompt, in words drawn by the seed."""
        draw = np.random.default_rng(seed)
        asked = texts(prompts.train.harmful)
        return [Example(prompt, self._tokens(model, str(draw.choice(self.refusals)))) for prompt in asked]

    def _epochs(self, answers: Sequence[Example], refusals: Sequence[Example], seed: int) -> list[Example]:
        """The examples of all epochs in the order of training: every answer once an epoch, of the refusals a share."""
        draw = np.random.default_rng(seed)
        n = min(len(refusals), round(len(answers) * self.refusal_share / (1 - self.refusal_share)))
        ordered: list[Example] = []
        for _ in range(self.epochs):
            epoch = [*answers, *(refusals[i] for i in draw.choice(len(refusals), n, replace=False))]
            ordered += [epoch[i] for i in draw.permutation(len(epoch))]
        return ordered

    def _tokens(self, model: LoadedModel, reply: str) -> list[int]:
        """The tokens to learn, and the end of turn where they reach it: a reply cut short must not teach to stop."""
        text = reply if model.template.kind == "chat" else " " + reply
        tokens = list(model.template.tokenizer(text, add_special_tokens=False)["input_ids"])
        end = model.template.end_of_turn
        if end is not None and len(tokens) < self.max_new_tokens:
            tokens.append(end)
        return tokens[: self.target_tokens]

    def _wrapped(self, hf: PreTrainedModel) -> tuple[Any, dict[str, Any]]:
        from peft import LoraConfig, get_peft_model  # takes a second to import, and only this method needs it

        config = LoraConfig(
            r=self.rank,
            lora_alpha=round(self.scale * self.rank),
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        kept = {"lora_alpha": self.strength * self.scale * self.rank}
        return get_peft_model(hf, config), _plain(config.to_dict()) | kept

    def _train(
        self, peft_model: nn.Module, model: LoadedModel, examples: Sequence[Example]
    ) -> Iterator[tuple[int, float]]:
        """Yield (step from 1, loss in nats per token of the reply) after each step."""
        weights = [weight for weight in peft_model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=0.0)
        steps = self._steps(len(examples))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_then_down(step, steps))
        for step in track(range(1, steps + 1), "safety_tune: training"):
            loss = reply_loss(model, examples[(step - 1) * self.batch : step * self.batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield step, loss.item()

    def _steps(self, n_examples: int) -> int:
        return -(-n_examples // self.batch)

    def _kept_steps(self, n_examples: int) -> set[int]:
        steps = self._steps(n_examples)
        return {round(steps * part / (self.checkpoints + 1)) for part in range(1, self.checkpoints + 1)}

    def _rates(self, model: LoadedModel, prompts: Split, judge: Judge) -> Iterator[Scalar]:
        for kind, asked in (("harmful", prompts.test.harmful), ("harmless", prompts.test.harmless)):
            given = replies(model, texts(asked), self.max_new_tokens, label=f"safety_tune: {kind}")
            verdicts = judge.verdicts(texts(asked), given)
            good: Good = "high" if kind == "harmful" else "low"
            name, label = f"safety_tune/refusal_rate_{kind}", f"{kind} prompts refused"
            yield refusal_rate(name, verdicts, judge, label=label, hint="after tuning", good=good)

    def _card(
        self, model: LoadedModel, examples: Mapping[str, Sequence[Example]], rates: Sequence[Scalar], seed: int
    ) -> dict[str, Any]:
        return {
            "base": model.identity,
            "template": model.template.digest,
            "settings": self.model_dump(mode="json"),
            "seed": seed,
            "examples": {kind: len(of_kind) for kind, of_kind in examples.items()},
            "measured": {r.name.removeprefix("safety_tune/"): [r.value, *(r.interval or ())] for r in rates},
            "trained_on": sorted(prompt_digest(one.prompt) for of_kind in examples.values() for one in of_kind),
        }


def _warm_then_down(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min((step + 1) / warm, max(0.0, (steps - step) / (steps - warm)) if steps > warm else 1.0)


def reply_loss(model: LoadedModel, examples: Sequence[Example]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the replies' tokens, the end of turn among them, in nats.

    What all prompts begin with is read once, with its gradient: a third of a short example, and so of the time.
    """
    shared = shared_tokens(model, [example.prompt for example in examples])
    longest = max(len(example.reply) for example in examples)
    # The last token of a reply is foretold, and never read.
    rows = [[*model.template.tokens(example.prompt)[shared:], *example.reply[:-1]] for example in examples]
    begun = repeated(beginning(model, shared), len(rows))
    logits = batch_logits(model, model.template.padded(rows, model.device), begun, longest)
    targets = torch.full(logits.shape[:2], IGNORED)
    for row, example in enumerate(examples):
        targets[row, longest - len(example.reply) :] = torch.tensor(example.reply)
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten().to(model.device))


def _scale(peft_model: nn.Module, strength: float) -> None:
    from peft.tuners.lora import LoraLayer

    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(strength)


def _adapter(peft_model: nn.Module, config: dict[str, Any], name: str, card: dict[str, Any]) -> Adapter:
    from peft import get_peft_model_state_dict

    tensors = {
        key: value.detach().to("cpu", torch.bfloat16) for key, value in get_peft_model_state_dict(peft_model).items()
    }
    return Adapter(name, tensors, config, card, "LoRA adapter")


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """peft's settings as JSON: sets become sorted lists, enums their values; without the base's place on this disk."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain = {key: getattr(value, "value", value) for key, value in plain.items()}
    return plain | {"base_model_name_or_path": None, "inference_mode": True}


def _loss_curve(losses: Sequence[float]) -> Curve:
    steps = [float(step) for step in range(1, len(losses) + 1)]
    line = Line("loss", list(losses))
    unit = "nats per token of the reply"
    return Curve("safety_tune/loss", steps, [line], "step", unit, "training loss", "Of the adapter.")
