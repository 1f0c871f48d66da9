"""Activation checkpointing (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a function of which, if gradients are computed, only the arguments are kept:
    the backward pass calls it again, with the same random numbers."""
    if torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False)
    return function(*args)
