"""Why a run of a family with several stages is compared with none, and what would cure it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rcm.comparison.families import Family, LeftOut
from rcm.comparison.identity import seed_of, weights_of
from rcm.comparison.pairing import Model, Pairing, cell_of
from rcm.comparison.reading import Reading
from rcm.comparison.settings import differing, listed


def unpaired(family: Family, pairing: Pairing) -> Iterator[LeftOut]:
    """In the family's order; nothing where it has one stage."""
    if not pairing.later:
        return
    held = pairing.held
    paired = {reading.run.id for one in held for two in one.joined for reading in two}
    for reading in family.readings:
        if reading.run.id in paired:
            continue
        partners = [one.later for one in held if reading in one.earlier]
        partners += [one.earlier for one in held if reading in one.later]
        instead = [two for one in held for two in one.joined if _replaces(two, reading)]
        if not partners:
            yield LeftOut(reading.run, _not_held(reading, family, pairing))
        elif instead:
            yield LeftOut(reading.run, _others_instead(reading, instead[0]))
        else:
            yield LeftOut(reading.run, _no_partner(reading, partners))


def _replaces(two: tuple[Reading, Reading], reading: Reading) -> bool:
    return any((weights_of(one), cell_of(one)) == (weights_of(reading), cell_of(reading)) for one in two)


def _not_held(reading: Reading, family: Family, pairing: Pairing) -> str:
    """Of a model that no other is held against."""
    twin = next(
        (one for one in family.readings if weights_of(one) == weights_of(reading) and one.stage != reading.stage), None
    )
    if pairing.held and any(reading in model for model in pairing.earlier):
        used = listed(dict.fromkeys(f"{one.earlier[0].name} ({one.earlier[0].run.id})" for one in pairing.held))
        return (
            f"Family {family.name} has several models of stage {reading.stage}; later ones are held against {used}; to "
            f"compare {reading.name} with what came of it, give both another model.family."
        )
    if twin is None:
        return f"Family {family.name} has no later model to compare {reading.name} with; run one of a later stage."
    return (
        f"Stage {reading.stage} of family {family.name} has the same weights as stage {twin.stage} ({twin.name}, run "
        f"{twin.run.id}), so nothing was tuned; correct model.stage, or choose other weights."
    )


def _others_instead(reading: Reading, two: tuple[Reading, Reading]) -> str:
    """Of a run beside which another of the same model, prompts and seed was compared."""
    stands, partner = two if weights_of(two[0]) == weights_of(reading) else two[::-1]
    names = list(differing([reading, partner])) or ["model.stage"]
    return (
        f"Run {stands.run.id} of the same model, prompts and seed was compared with {partner.name} ({partner.run.id}) "
        f"instead, as no run of {partner.name} has this one's {listed(names)}; run {_command(partner)} with the same."
    )


def _no_partner(reading: Reading, partners: Sequence[Model]) -> str:
    seed = seed_of(reading)
    names = listed(dict.fromkeys(model[0].name for model in partners), "or")
    prompts = {"dataset": reading.run.choices.get("dataset"), "seed": seed}
    commands = listed(dict.fromkeys(_command(model[0], prompts) for model in partners), "or")
    return f"No run of {names} with seed {seed} on these prompts; run {commands}."


def _command(reading: Reading, others: Mapping[str, Any] | None = None) -> str:
    """What chooses a run's model, and other settings, on the command line."""
    model: Mapping[str, Any] = reading.setting("model") or {}
    shown = [f"model={reading.run.choices['model']}"]
    shown += [f"model.path={model['path']}"] if model.get("path") else []
    shown += [f"model.revision={model['revision']}"] if model.get("revision") not in (None, "main") else []
    shown += [f"model.quantization={model['quantization']}"] if model.get("quantization") else []
    adapter = model.get("adapter")
    own = adapter is None or not reading.name.endswith(f" + {Path(adapter).name}")  # the option brings it along
    shown += [] if own else [f"model.adapter={adapter}"]
    return " ".join([*shown, *(f"{name}={value}" for name, value in (others or {}).items())])
