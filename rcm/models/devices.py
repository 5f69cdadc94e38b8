"""Where to run. Nothing here changes what is measured, so it is no part of a run's identity."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt

from rcm.errors import InputError
from rcm.models.placement import Placement, Spread
from rcm.settings import Settings


class Resolved(NamedTuple):
    """A device, and why this one, for the log."""

    device: torch.device
    reason: str


class Device(Settings):
    """`batch_size`: the most prompts that go through the model at once; null is as many as are useful and there is room
    for (`rcm.execution.batches`). `threads`: that compute on the CPU; null is as many as the process may use
    (`rcm.running.processors`). `map`: how a model is spread over devices, `auto` or a device for each part; null puts
    all of it on one. `max_memory`: of each device, in bytes or as `20GiB`; null is what is free. `offload`: a folder
    for layers that lie on the disk; null is the system's for temporary files."""

    kind: Literal["auto", "cpu", "cuda"]
    batch_size: PositiveInt | None
    threads: PositiveInt | None
    map: Spread | dict[str, int | str] | None
    max_memory: dict[int | str, int | str] | None
    offload: str | None

    def placement(self) -> Placement:
        """Where a model's weights go; raises InputError as `resolve` does."""
        if self.map is None and (unused := [name for name in ("max_memory", "offload") if getattr(self, name)]):
            raise InputError(f"device.{unused[0]} is for a model that is spread; add device.map=auto.")
        offload = None if self.offload is None else Path(self.offload).expanduser()
        return Placement(self.resolve().device, self.map, self.max_memory, offload)

    def resolve(self) -> Resolved:
        """The device to use; raises InputError where CUDA is asked for and there is none."""
        cuda = torch.cuda.is_available()
        match self.kind:
            case "cpu":
                return Resolved(torch.device("cpu"), "device=cpu was chosen")
            case "auto" if not cuda:
                return Resolved(torch.device("cpu"), "PyTorch sees no CUDA device")
            case "cuda" if not cuda:
                raise InputError(
                    "device=cuda, but PyTorch sees no CUDA device; choose device=cpu, or install a PyTorch with CUDA."
                )
            case _:
                return Resolved(torch.device("cuda"), f"found {torch.cuda.get_device_name()}")
