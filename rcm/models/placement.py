"""Where a model's weights lie: all on one device, or spread by layers over GPUs, the host's memory and the disk.

accelerate decides which layer lies where, and brings inputs, and weights that were left in memory or on the disk, to
the device where the layer computes. A layer is never divided. What rcm adds to a layer is put where the layer computes
(`rcm.models.points.device_of`).
"""

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rcm.errors import InputError

Spread = Literal["auto", "balanced", "sequential"]
Budget = Mapping[int | str, int | str]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """`device`: where tokens go in, and where all of the model lies unless there is a `map`: accelerate's word for how
    to spread it, or a device for each part by its name. `max_memory`: of each device, as accelerate takes it; None is
    what is free. `offload`: a folder for what lies on the disk; None is the system's for temporary files."""

    device: torch.device
    map: Spread | Mapping[str, int | str] | None = None
    max_memory: Budget | None = None
    offload: Path | None = None

    @classmethod
    def of(cls, where: "torch.device | Placement") -> "Placement":
        return where if isinstance(where, Placement) else cls(where)

    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` needs, so that weights go straight to where they will lie."""
        if self.map is None:
            # Without a map it makes the model on the CPU, where it is to stay in this case alone.
            return {} if self.device.type == "cpu" else {"device_map": {"": self.device}}
        return {"device_map": self.map if isinstance(self.map, str) else dict(self.map), **self._limits()}

    def check(self, hf: PreTrainedModel) -> None:
        """Raise InputError where a map that names parts leaves some out: transformers would let them lie."""
        if self.map is None or isinstance(self.map, str):
            return
        for name, _ in hf.named_parameters():
            if not any(part == "" or name == part or name.startswith(f"{part}.") for part in self.map):
                raise InputError(
                    f"device.map places {', '.join(self.map)}, and not {name}; name a device for each part of the "
                    "model, or use device.map=auto."
                )

    def _limits(self) -> dict[str, Any]:
        limits = None if self.max_memory is None else dict(self.max_memory)
        if self.device.type == "cpu":  # accelerate takes every GPU that it sees
            limits = {key: limit for key, limit in (limits or _free_memory()).items() if key == "cpu"}
        return {"max_memory": limits, "offload_folder": str(self._scratch())}

    def _scratch(self) -> Path:
        try:
            if self.offload is not None:
                self.offload.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="rcm-offload-", dir=self.offload))
        except OSError as error:
            raise InputError(
                f"Nothing can be laid on the disk in device.offload={error.filename} ({error.strerror}); name another "
                "folder."
            ) from error

    def spread(self, hf: PreTrainedModel) -> PreTrainedModel:
        """A model that was made in the host's memory, put where it is to lie."""
        if self.map is None:
            moved: Any = hf
            return moved.to(self.device)
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        self.check(hf)  # before there is a folder that nobody would take away
        limits = self._limits()
        if isinstance(self.map, str):
            within = limits["max_memory"]
            whole = {"max_memory": within, "no_split_module_classes": list(hf._no_split_modules or ())}
            if self.map != "sequential":
                whole["max_memory"] = get_balanced_memory(hf, **whole)
            places = infer_auto_device_map(hf, **whole)
        else:
            places = dict(self.map)
        spread: PreTrainedModel = dispatch_model(hf, places, offload_dir=limits["offload_folder"])
        spread.hf_device_map = places
        return cleared(spread, limits["offload_folder"])


ON_CPU = Placement(torch.device("cpu"))


def _free_memory() -> dict[int | str, int]:
    from accelerate.utils import get_max_memory

    return get_max_memory()


def cleared(hf: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The same; what was laid in the folder goes when the model does."""
    weakref.finalize(hf, shutil.rmtree, folder, ignore_errors=True)
    return hf


def described(hf: PreTrainedModel) -> str | None:
    """Which layers lie where, for the log; None of a model that lies on one device."""
    places: Mapping[str, Any] = getattr(hf, "hf_device_map", {})
    if len(set(map(str, places.values()))) < 2:
        return None
    by_place = [
        (str(place), [name for name, _ in some]) for place, some in groupby(places.items(), lambda item: item[1])
    ]
    parts = [f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0] for _, names in by_place]
    return "; ".join(f"{part} on {_named(place)}" for (place, _), part in zip(by_place, parts, strict=True))


def _named(place: str) -> str:
    return f"cuda:{place}" if place.isdecimal() else {"cpu": "the CPU", "disk": "the disk"}.get(place, place)


def untested(devices: set[torch.device], quantization: str | None) -> str | None:
    """What of this nobody has tried who made rcm, for the log; None where its tests run the like."""
    accelerators = {device for device in devices if device.type not in ("cpu", "meta")}
    found = [
        *(["a GPU"] if accelerators else []),
        *(["several devices, one of them a GPU"] if accelerators and len(devices) > 1 else []),
        *([f"{quantization} weights on a GPU"] if accelerators and quantization else []),
    ]
    if not found:
        return None
    return (
        f"Untested by rcm's makers: {', '.join(found)}. Its tests run on CPUs; method=doctor checks what is measured "
        "on this very device."
    )


def whole_on(hf: PreTrainedModel) -> torch.device | None:
    """The one device on which all of the model lies; None where it is spread."""
    devices = {tensor.device for tensor in hf.parameters()}
    return devices.pop() if len(devices) == 1 and not any(device.type == "meta" for device in devices) else None


def stored(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by its name, with its values: of those that accelerate brings in for each pass, from where it
    does. Those are read one after the other, and not kept."""
    for prefix, module in hf.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for name, value in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}".lstrip(".")
            if value.is_meta and (brought := getattr(hook, "weights_map", None)) is not None:
                yield full, brought[name]
            else:
                yield full, value
