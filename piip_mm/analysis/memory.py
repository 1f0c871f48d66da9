"""Memory of networks: at the peak of a step, and what is kept for the backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from .timing import Methods, Step, wrapped_methods


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes of tensors that a step has at once, besides those that exist before it.

    What libraries allocate without PyTorch is not seen.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [event for event in events if event.name() == '[memory]']
    current = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def kept_for_backward(
    step: Step, network: nn.Module, parts: Methods, rest: str
) -> dict[str, int]:
    """Bytes of the tensors that the forward pass of a training step keeps for the
    backward pass, without the parameters.

    Args:
        step: The training step.
        network: What it trains.
        parts: Methods of the parts of the network. A tensor counts for the part that
            keeps it first.
        rest: Name for what no part keeps.

    Returns:
        Bytes by part.
    """
    kept = Counter(dict.fromkeys([*parts, rest], 0))
    running = [rest]
    known = {_storage(param) for param in network.parameters()}

    def inside(part: str, method: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            running.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                running.pop()

        return run

    def keep(x: Tensor) -> Tensor:
        if _storage(x) not in known:
            known.add(_storage(x))
            kept[running[-1]] += x.untyped_storage().nbytes()
        return x

    with wrapped_methods(parts, inside), saved_tensors_hooks(keep, lambda x: x):
        step()
    return dict(kept)


def _storage(x: Tensor) -> int:
    """What views of the same memory have in common."""
    return x.untyped_storage()._cdata
