"""Where to compute. Knows the machine, not the model."""

from __future__ import annotations

import torch


def machine_device() -> str:
    """Return the kind of device to compute on: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
