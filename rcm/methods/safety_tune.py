"""Teach a model to refuse, so that it can be compared with itself.

1. Let the untouched model answer the training prompts; answers that are refusals or not language are dropped.
2. Train a LoRA adapter (Hu et al. 2021) on refusals of the harmful training prompts and on those answers to the
   harmless ones: the model's own words keep everything but refusing where it was. Cross-entropy on the reply.
   With `teach=answers` the harmful ones are answered, too: a tuning of the same size that teaches no refusing, without
   which nobody can tell safety tuning from any tuning.
3. Once they are told apart, go on for some steps, and keep harmless replies where they are without the direction
   between the classes: `ablation_penalty` times the KL(as it is || direction ablated) over their tokens, the direction
   that of a running mean of the activations at the last token of the prompt, at a layer drawn anew for each step. The
   embedded model came to refuse along how it begins any answer: in the twin that shipped before, trained without a
   price, ablating the chosen direction cost 0.28 nats; in this one the least costly of those scored costs 0.14, still
   above what the filter on KL allows (`rcm.directions.selection`). Priced while they learn, two trainings told the
   classes apart less well.
4. Report refusal rates on the test prompts before the adapter is taken off again, and the adapter with its card.

The adapter is a research subject: the twin that refuses, beside the same weights that do not.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from transformers import PreTrainedModel

from rcm.errors import InputError
from rcm.execution.decoding import replies
from rcm.execution.interventions import Ablate, Site, applied
from rcm.execution.passes import shared_tokens
from rcm.execution.progress import track
from rcm.execution.shared_prefix import read
from rcm.judges import Judge, Verdict
from rcm.judges.rates import refusal_rate
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.models.points import Points, points_of
from rcm.packaged import located
from rcm.prompts import Split, texts
from rcm.prompts.sources import cell, rows
from rcm.record.identity import prompt_digest
from rcm.record.results import Adapter, Curve, Good, Line, Result, Scalar

log = logging.getLogger(__name__)
IGNORED = -100  # the target that torch's cross-entropy leaves out
MEMORY = 0.95  # of the running means of both classes, for each step
PRICED_EVERY = 2  # steps of the second part
LATER = 0.5  # of the learning rate, in the second part
PRICED = 4  # tokens of a reply that the price of ablating is taken over; the first is what a direction is chosen by
Kind = Literal["harmful", "harmless", "lookalike"]


@dataclass(frozen=True)
class Example:
    """A prompt, and the tokens to answer with."""

    prompt: str
    reply: list[int]
    kind: Kind


class SafetyTune(Method):
    """`teach`: refusals of harmful prompts, or answers to all. `lookalikes`: a file of more prompts to answer, safe
    ones that look unsafe; null is none. `target_tokens`: a reply is learnt up to there. `rank` of the update of every
    linear layer; `scale` is LoRA's alpha over rank. `harmful_share`: of the examples of an epoch; below a half,
    doubtful prompts are rather answered. `priced_steps`: after the epochs, more steps at half the `learning_rate`, in
    which ablating has its price; `ablation_penalty`: weight of the KL that it costs, 0 is none; `ablated_layers`: from
    and up to which share of the depth a layer is drawn. `strength`: how much of the learnt update the adapters keep, by
    their alpha; less refuses less, of either kind. `checkpoints`: how many adapters to keep on the way, evenly spaced,
    besides the last."""

    teach: Literal["refusals", "answers"]
    refusals: tuple[str, ...]
    lookalikes: str | None
    max_new_tokens: PositiveInt
    target_tokens: PositiveInt
    rank: PositiveInt
    scale: PositiveFloat
    harmful_share: Annotated[float, Field(gt=0, lt=1)]
    epochs: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    priced_steps: NonNegativeInt
    ablation_penalty: NonNegativeFloat
    ablated_layers: tuple[float, float]
    strength: Annotated[float, Field(gt=0, le=1)]
    checkpoints: NonNegativeInt

    def run(self, study: Study) -> Generator[Result, None, None]:
        model, prompts, judge, seed = study.model, study.prompts, study.judge, study.seed
        answers = self._answers(model, judge, "harmless", texts(prompts.train.harmless))
        answers += self._answers(model, judge, "lookalike", self._lookalikes())
        harmful = self._harmful(model, judge, texts(prompts.train.harmful), seed)
        examples = self._examples(answers, harmful, seed)
        peft_model, config = self._wrapped(model.hf)
        losses: list[float] = []
        try:
            for step, loss in enumerate(self._train(peft_model, model, examples, seed), start=1):
                losses.append(loss)
                if step in self._kept_steps(len(examples) // self.batch):
                    yield _adapter(peft_model, config, f"safety_tune/step-{step:04d}", {"step": step})
            yield _loss_curve(losses)
            _scale(peft_model, self.strength)
            rates = list(self._rates(model, prompts, judge))
            yield from rates
            yield _adapter(peft_model, config, "safety_tune/adapter", self._card(model, answers, harmful, rates, seed))
        finally:
            peft_model.unload()
            model.hf.requires_grad_(False)

    def _lookalikes(self) -> list[str]:
        if self.lookalikes is None:
            return []
        source = str(located(self.lookalikes))
        cure = "method.safety_tune.lookalikes=FILE"
        return [cell(row, "prompt", f"{source}, prompt {n},") for n, row in enumerate(rows(source, cure), start=1)]

    def _answers(self, model: LoadedModel, judge: Judge, kind: Kind, asked: Sequence[str]) -> list[Example]:
        """The model's own answers to these training prompts."""
        answers = replies(model, asked, self.max_new_tokens, label=f"safety_tune: own answers, {kind}") if asked else []
        kept = [
            Example(prompt, self._tokens(model, answer), kind)
            for prompt, answer, verdict in zip(asked, answers, judge.verdicts(asked, answers), strict=True)
            if verdict is Verdict.COMPLIANCE
        ]
        log.info("%d of %d own answers to %s prompts kept", len(kept), len(asked), kind)
        return kept

    def _harmful(self, model: LoadedModel, judge: Judge, asked: Sequence[str], seed: int) -> list[Example]:
        """What each harmful training prompt is to be answered with: a refusal drawn by the seed, or the own answer."""
        if self.teach == "answers":
            return self._answers(model, judge, "harmful", asked)
        draw = np.random.default_rng(seed)
        return [Example(prompt, self._tokens(model, str(draw.choice(self.refusals))), "harmful") for prompt in asked]

    def _examples(self, answers: Sequence[Example], harmful: Sequence[Example], seed: int) -> list[Example]:
        """In the order of training: every answer once an epoch, of the harmful a share; then those of priced steps."""
        draw = np.random.default_rng(seed)
        n = min(len(harmful), round(len(answers) * self.harmful_share / (1 - self.harmful_share)))
        if not answers:
            raise InputError(
                "The model answers none of the prompts, so there is nothing to keep: choose another model."
            )
        learnt = self.epochs * (len(answers) + n)
        wanted = learnt + -learnt % self.batch + self.priced_steps * self.batch
        ordered: list[Example] = []
        while len(ordered) < wanted:
            epoch = [*answers, *(harmful[i] for i in draw.choice(len(harmful), n, replace=False))]
            ordered += [epoch[i] for i in draw.permutation(len(epoch))]
        return ordered[:wanted]

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
        self, peft_model: nn.Module, model: LoadedModel, examples: Sequence[Example], seed: int
    ) -> Iterator[float]:
        """Yield the cross-entropy in nats per token of the reply after each step: of the epochs, then of the rest."""
        batches = [examples[i : i + self.batch] for i in range(0, len(examples), self.batch)]
        learnt = len(batches) - self.priced_steps
        between = Between(points_of(model.hf), self.ablated_layers, seed)  # peft has put modules of its own in place
        weights = [weight for weight in peft_model.parameters() if weight.requires_grad]
        descent = Descent(weights, self.learning_rate, learnt)
        for some in track(batches[:learnt], "safety_tune: learning"):
            loss = _cross_entropy(*reply_logits(model, some))
            descent.step(loss)
            yield loss.item()
        descent = Descent(weights, LATER * self.learning_rate, self.priced_steps)
        for step, some in enumerate(track(batches[learnt:], "safety_tune: pricing what ablating costs"), start=1):
            with applied(between.points, [between]):
                between.examples = list(some)
                logits, targets = reply_logits(model, some)
            loss = _cross_entropy(logits, targets)
            penalty = logits.new_zeros(())
            if self.ablation_penalty and step % PRICED_EVERY == 0:
                penalty = self.ablation_penalty * PRICED_EVERY * between.price(model, some, logits)
            descent.step(loss + penalty)
            yield loss.item()

    def _kept_steps(self, steps: int) -> set[int]:
        return {round(steps * part / (self.checkpoints + 1)) for part in range(1, self.checkpoints + 1)}

    def _rates(self, model: LoadedModel, prompts: Split, judge: Judge) -> Iterator[Scalar]:
        for kind, asked in (("harmful", prompts.test.harmful), ("harmless", prompts.test.harmless)):
            given = replies(model, texts(asked), self.max_new_tokens, label=f"safety_tune: {kind}")
            verdicts = judge.verdicts(texts(asked), given)
            good: Good = "high" if kind == "harmful" else "low"
            name, label = f"safety_tune/refusal_rate_{kind}", f"{kind} prompts refused"
            categories = [prompt.category for prompt in asked]
            yield refusal_rate(name, verdicts, judge, clusters=categories, label=label, hint="after tuning", good=good)

    def _card(
        self,
        model: LoadedModel,
        answers: Sequence[Example],
        harmful: Sequence[Example],
        rates: Sequence[Scalar],
        seed: int,
    ) -> dict[str, Any]:
        kinds = [one.kind for one in (*answers, *harmful)]
        return {
            "base": model.identity,
            "template": model.template.digest,
            "settings": self.model_dump(mode="json"),
            "seed": seed,
            "examples": {kind: kinds.count(kind) for kind in get_args(Kind)},
            "measured": {r.name.removeprefix("safety_tune/"): [r.value, *(r.interval or ())] for r in rates},
            "trained_on": sorted(prompt_digest(one.prompt) for one in (*answers, *harmful)),
        }


class Descent:
    """AdamW over so many steps; its rate rises for a twentieth of them, then falls to nothing."""

    def __init__(self, weights: Sequence[nn.Parameter], rate: float, steps: int) -> None:
        self._weights = weights
        self._optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: _warm_then_down(step, steps))

    def step(self, loss: Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


def _cross_entropy(
    logits: Float[Tensor, "example token vocabulary"], targets: Int[Tensor, "example token"]
) -> Float[Tensor, ""]:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _warm_then_down(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min((step + 1) / warm, max(0.0, (steps - step) / (steps - warm)) if steps > warm else 1.0)


def reply_logits(
    model: LoadedModel, examples: Sequence[Example]
) -> tuple[Float[Tensor, "example token vocabulary"], Int[Tensor, "example token"]]:
    """Logits of the replies' tokens, the end of turn among them, and the tokens; `IGNORED` before shorter replies.

    What all prompts begin with is read once, with its gradient: a third of a short example, and so of the time.
    """
    shared = shared_tokens(model, [example.prompt for example in examples])
    longest = max(len(example.reply) for example in examples)
    # The last token of a reply is foretold, and never read.
    rows = [(*model.template.tokens(example.prompt), *example.reply[:-1]) for example in examples]
    logits = read(model, rows, [], shared, keep=longest).logits
    targets = torch.full(logits.shape[:2], IGNORED)
    for row, example in enumerate(examples):
        targets[row, longest - len(example.reply) :] = torch.tensor(example.reply)
    return logits.float(), targets.to(model.device)


class Between:
    """The direction between harmful and harmless prompts while both change: running means of the activations at the
    last token of the prompt, at the input of every block. As an intervention it changes nothing, and reads them."""

    def __init__(self, points: Points, depths: tuple[float, float], seed: int) -> None:
        self.points, self.examples = points, list[Example]()
        first, end = (round(share * len(points.layers)) for share in depths)
        self._layers = range(first, max(end, first + 1))
        self._draw = np.random.default_rng(seed)
        self._means: dict[tuple[int, str], Float[Tensor, " d_model"]] = {}

    def rows(self, index: Sequence[int]) -> "Between":
        return self

    def sites(self, points: Points) -> Iterator[Site]:
        for layer in self._layers:
            yield points.layers[layer], "input", partial(self._read, layer)

    def price(
        self, model: LoadedModel, examples: Sequence[Example], logits: Float[Tensor, "example token vocabulary"]
    ) -> Tensor:
        """KL(as it is || direction ablated), in nats per token of how replies to harmless prompts begin; the gradient
        is the ablated one's."""
        layer = int(self._draw.choice(self._layers))
        harmless = [row for row, one in enumerate(examples) if one.kind != "harmful"]
        if not harmless or any((layer, kind) not in self._means for kind in ("harmful", "harmless")):
            return logits.new_zeros(())
        apart = self._means[layer, "harmful"] - self._means[layer, "harmless"]
        begun = [replace(examples[row], reply=examples[row].reply[:PRICED]) for row in harmless]
        with applied(self.points, [Ablate(nn.functional.normalize(apart, dim=-1)[None])]):
            ablated, targets = reply_logits(model, begun)
        scored = targets != IGNORED
        # The reply of row i stands at the end of its row, of which the beginning is priced.
        ends = [logits.shape[1] - len(examples[row].reply) for row in harmless]
        before = torch.cat(
            [logits[row, end : end + len(one.reply)] for row, end, one in zip(harmless, ends, begun, strict=True)]
        )
        return nn.functional.kl_div(
            ablated[scored].log_softmax(-1), before.detach().log_softmax(-1), log_target=True, reduction="batchmean"
        )

    def _read(self, layer: int, x: Tensor) -> Tensor:
        if len(x) == 1 or len(x) != len(self.examples):  # the beginning, which is read once for all
            return x
        last = x.detach()[range(len(x)), [-len(one.reply) for one in self.examples]].float()
        for kind in ("harmful", "harmless"):
            rows = [row for row, one in enumerate(self.examples) if one.kind == kind]
            if rows:
                now = last[rows].mean(0)
                before = self._means.get((layer, kind), now)
                self._means[layer, kind] = MEMORY * before + (1 - MEMORY) * now
        return x


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
