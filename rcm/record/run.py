"""A run in plain values: what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rcm.packaged import PACKAGED

Status = Literal["started", "finished", "failed"]
# What training a model has behind it; `benign`: tuned like its safety-trained twin, with nothing to refuse. What either
# was tuned from may be of any stage before.
Stage = Literal["base", "sft", "chat", "benign", "safety"]
BENIGN: Stage = "benign"
STAGES: tuple[Stage, ...] = get_args(Stage)  # as training goes


@dataclass(frozen=True)
class Run:
    """What was asked for. `choices`: the option of each group, and of `method` all, with commas. `config`: the whole
    composed config, as plain values. `weights`, `data`: digests of what was measured, and on which prompts
    (`rcm.record.identity`). `sources`: the digest of the code that measured (`rcm.record.sources`). `findings`: by
    method, the key under which what it finds is kept; none where nothing is. `digest`: the sha256 that the id is the
    beginning of; runs of before have none."""

    id: str
    directory: Path
    choices: Mapping[str, str]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights: str = ""
    data: str = ""
    sources: str = ""
    findings: Mapping[str, str] = field(default_factory=dict[str, str])
    digest: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it ran, in order."""
        return tuple(self.config.get("method", ()))

    @property
    def label(self) -> str:
        """The model's name for people: of its option, or of its folder or file; with what else tells weights apart."""
        model: Mapping[str, Any] = self.config.get("model", {})
        name = Path(model["path"]).name.removesuffix(".gguf") if model.get("path") else self.choices.get("model", "")
        revision, adapter = model.get("revision"), model.get("adapter")
        name += f"@{str(revision)[:12]}" if revision not in (None, "main") else ""
        name += f" in {model['quantization']}" if model.get("quantization") else ""
        own = adapter is None or str(adapter).startswith(PACKAGED)
        return name if own else f"{name} + {Path(str(adapter)).name}"

    @property
    def family(self) -> str | None:
        """Models of one family may be compared."""
        return self.config.get("model", {}).get("family")

    @property
    def stage(self) -> str | None:
        """What training the model has behind it."""
        return self.config.get("model", {}).get("stage")
