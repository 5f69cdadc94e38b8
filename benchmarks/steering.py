"""How long a dose-response takes: prompts and strengths in shared batches, beside one prompt and strength at a time.

    python -m benchmarks.steering                                       # the tuned model, 48 prompts, 8 strengths
    python -m benchmarks.steering --prompts 8 --strengths 4 --sample 8  # a minute

In one process, in turn and several times over: ours, and transformers' own greedy `generate` under the same hooks on a
sample of the rows, scaled up. The direction is the mean difference of the training prompts at one layer. Texts are
compared; where rounding makes two ways differ, the two likeliest tokens at the first difference must be tied, and are
counted. Prints a table of medians and, as the last line, JSON.
"""

import argparse
import json

import torch
from torch import Tensor

from benchmarks.shared import interleaved, medians, model_of, prompts_of, settings
from rcm.directions.fit import mean_difference
from rcm.execution.decoding import reply_tokens
from rcm.execution.interventions import Add, applied
from rcm.execution.passes import read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Split, texts

TIED = 1e-3  # of a logit


def main() -> None:
    options = parsed()
    model, split = loaded(options)
    harmful, harmless = (read_residuals(model, texts(side[:32]), [-1], "").at(0, options.layer) for side in split.train)
    vector = torch.from_numpy(mean_difference(harmful, harmless)).float()
    strengths = torch.linspace(0, 2, options.strengths + 1)[1:]
    asked = [prompt for _ in strengths for prompt in texts(split.test.harmless[: options.prompts])]
    pushes = Add(options.layer, strengths.repeat_interleave(options.prompts)[:, None] * vector)
    sample = torch.linspace(0, len(asked) - 1, options.sample).long().unique().tolist()

    def one(row: int) -> list[int]:
        """As anyone would: one prompt at one strength."""
        batch = model.template.batch([asked[row]], model.device)
        with torch.inference_mode(), applied(model.points, [pushes.rows([row])]):
            said = model.hf.generate(**batch._asdict(), max_new_tokens=options.tokens)
        return said[0, batch.input_ids.shape[1] :].tolist()

    reply_tokens(model, asked[:2], 2, [pushes.rows([0, 1])])  # warm
    one(0)
    ours: list[list[int]] = []
    said: dict[int, list[int]] = {}

    def together() -> None:
        ours[:] = reply_tokens(model, asked, options.tokens, [pushes])

    *_, seconds = interleaved(
        {"shared batches": together, "one at a time": lambda: said.update({row: one(row) for row in sample})},
        options.rounds,
    )
    taken = medians(seconds)
    taken["one at a time"] *= len(asked) / len(sample)
    apart = [margin(model, asked[row], pushes.rows([row]), said[row], ours[row]) for row in sample]
    report(options, len(asked), taken, [gap for gap in apart if gap is not None])


def margin(model: LoadedModel, prompt: str, push: Add, first: list[int], second: list[int]) -> float | None:
    """How far apart the two tokens were where two replies part; None if they are the same."""
    if first == second:
        return None
    place = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    tokens = torch.tensor([[*model.template.tokens(prompt), *first[:place]]], device=model.device)
    with torch.inference_mode(), applied(model.points, [push]):
        logits: Tensor = model.hf(tokens, use_cache=False).logits[0, -1]
    return float((logits[first[place]] - logits[second[place]]).abs())


def report(options: argparse.Namespace, rows: int, seconds: dict[str, float], gaps: list[float]) -> None:
    print(f"{options.model}, {options.device}: {options.prompts} prompts at {options.strengths} strengths, ", end="")
    print(f"{rows} rows of at most {options.tokens} tokens; medians of {options.rounds}; ", end="")
    print(f"one at a time on {options.sample} rows, scaled up")
    for name, value in seconds.items():
        print(f"  {name:16s} {value:9.1f} s   {value / seconds['shared batches']:6.1f} x")
    print(f"  of {options.sample} texts {len(gaps)} differ, by a tie of at most {max(gaps, default=0.0):.1e} logits")
    assert max(gaps, default=0.0) < TIED, "texts differ where nothing was tied"
    print(json.dumps({"options": vars(options), "rows": rows, "seconds": seconds, "differ": gaps}))


def loaded(options: argparse.Namespace) -> tuple[LoadedModel, Split]:
    config = settings(f"model={options.model}", f"dataset.test={options.prompts}")
    prompts = prompts_of(config)
    return model_of(config, prompts.template, options.device, options.batch_size), prompts


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal")
    parser.add_argument("--layer", type=int, default=22)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--strengths", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sample", type=int, default=24, help="rows that are generated one at a time")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
