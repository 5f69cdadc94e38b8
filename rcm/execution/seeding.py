"""Equal seeds, equal numbers: on one kind of device, with one version of PyTorch."""

import random

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Of all who draw without a generator of their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_everything(seed: int) -> None:
    """These, and from now on deterministic operations, as far as there are any."""
    seed_generators(seed)
    # As use_deterministic_algorithms(True, warn_only=True), which would first import a compiler for 1.5 seconds.
    torch.set_deterministic_debug_mode("warn")
