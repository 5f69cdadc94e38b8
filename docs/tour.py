# %% [markdown]
# # Three things in five lines each
# Find the circuit, extract the direction, steer: in memory, on the small model that comes along, in a minute or two.
# Runs under `python docs/tour.py`, and cell by cell in any editor that knows `# %%`. What a run of `launch.py` adds are
# the nulls, the intervals, the targets and the record; trust those, and use this to look around.

# %%
from rcm.directions.refusal_tokens import refusal_openings
from rcm.execution.components import Rows
from rcm.execution.decoding import replies
from rcm.execution.engine import engine_of
from rcm.execution.interventions import Ablate, Add
from rcm.execution.metric import LogOdds
from rcm.execution.passes import mean_probabilities
from rcm.execution.recording import cache_components
from rcm.methods import collected
from rcm.patching import interchange
from rcm.prompts import texts
from rcm.running.run import prepared

study, methods = prepared(
    "model=smollm2-135m-refusal",
    "method=direction",
    "dataset.train=32",
    "dataset.validation=12",
    "dataset.test=8",
    "method.direction.positions=[-1]",
    "method.direction.max_kl=1.0",  # few prompts, and a model in which refusing lies close to how it begins any answer
    "method.direction.null_draws=20",
    "method.direction.null_directions=2",
    "device=cpu",
)
model, prompts, judge, seed = study.model, study.prompts, study.judge, study.seed
harmful, harmless = texts(prompts.test.harmful), texts(prompts.test.harmless)

# %% [markdown]
# ## Find the circuit
# Every attention head of eight pairs, exchanged between a harmful prompt and its harmless twin, both ways: all heads in
# one pass. Shares of eight pairs are no finding; `method=[direction,patching]` says which heads are critical, and of
# strong ones that are not, why.

# %%
openings = refusal_openings(*(mean_probabilities(model, side, "refusal tokens") for side in (harmful, harmless)))
tokens = [one.token for one in openings]
pairs = [(model.template.tokens(a), model.template.tokens(b)) for a, b in zip(harmful, harmless, strict=True)]
engine = engine_of(
    model, cache_components(model, [pairs[0][0]], tail=2), cache_components(model, [pairs[0][1]], tail=2), seed
)
exchanged = interchange(engine, pairs, Rows.each(["head"], engine.shape), LogOdds(tuple(tokens)))
shares = exchanged.where(exchanged.gap.abs() >= 1).shares.mean((0, 1))  # necessity and sufficiency, in the pair's gaps

# %%
heads = engine.shape.components(["head"])
for cell in shares.argsort(descending=True)[:5].tolist():
    print(f"{heads[cell]}: {shares[cell]:.0%} of refusing goes with it")

# %% [markdown]
# ## Extract the direction
# The mean difference at every layer, scored by intervening; the best one that passes every filter.

# %%
figures, found = collected(methods["direction"].run(study))
print(figures["direction/outcome"].because)
print(f"separation {figures['direction/separation'].value:.2f}, null {figures['direction/separation'].null.value:.2f}")

# %% [markdown]
# ## Steer
# Added, it makes the model refuse what is harmless; ablated, it takes refusing away. The judge says which is which.

# %%
forced = replies(model, harmless, 24, [Add(found.layer, found.vector[None])])
freed = replies(model, harmful, 24, [Ablate((found.vector / found.vector.norm())[None])])
print("harmless, added:  ", [verdict.value for verdict in judge.verdicts(harmless, forced)])
print("harmful, ablated: ", [verdict.value for verdict in judge.verdicts(harmful, freed)])
print(f"{harmless[0]!r} -> {forced[0]!r}")
