"""Time of networks, measured in turns.

The subjects of a comparison alternate, so that a slow moment of the machine does not fall
on one of them alone, and every gain is a ratio within one run.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

Step = Callable[[], Any]

#: Methods of each part of a network, as pairs of an object and the method's name.
Methods = dict[str, list[tuple[Any, str]]]

#: Bytes of the tensors whose copy gives the ceiling of the memory's speed.
COPIED = 2**28


@dataclass
class Timing:
    """Seconds of one subject's steps."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median in seconds."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, over the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = quantiles(self.seconds, n=4)
        return (high - low) / 2 / self.median


def alternate(
    steps: Sequence[Step], device: torch.device, repeats: int, warmup: int = 2
) -> list[Timing]:
    """Time of steps that are run in turns.

    Args:
        steps: What is to be run.
        device: Where it runs.
        repeats: How often each is measured.
        warmup: How often each is run before.

    Returns:
        One timing per step.
    """
    timings = [Timing() for _ in steps]
    for index in tqdm(range(warmup + repeats), desc='timing', leave=False):
        for step, timing in zip(steps, timings, strict=True):
            elapsed = seconds(step, device)
            if index >= warmup:
                timing.seconds.append(elapsed)
    return timings


def seconds(step: Step, device: torch.device) -> float:
    """Time of one step, on CUDA between events of the device."""
    if device.type != 'cuda':
        started = time.perf_counter()
        step()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    step()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


@dataclass(frozen=True)
class Ceilings:
    """What the machine reaches at best.

    Attributes:
        products: Multiply-adds per second of a large matrix product.
        copies: Bytes per second, read and written, of a large copy.
    """

    products: float
    copies: float


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure the ceilings, each as the fastest of several runs."""
    side = 8192 if device.type == 'cuda' else 3072
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(COPIED, device=device, dtype=torch.uint8).zero_()
    target = torch.empty_like(source).zero_()
    product, copy = alternate(
        [partial(torch.mm, left, right), partial(target.copy_, source)], device, repeats=7
    )
    return Ceilings(
        products=side**3 / min(product.seconds), copies=2 * COPIED / min(copy.seconds)
    )


@contextmanager
def wrapped_methods(
    parts: Methods, wrap: Callable[[str, Callable], Callable]
) -> Iterator[None]:
    """Replace the methods of the parts of a network.

    Args:
        parts: The methods.
        wrap: From the name of a part and one of its methods to what takes its place.
    """
    methods = [(part, *method) for part, found in parts.items() for method in found]
    for part, owner, name in methods:
        owner.__dict__[name] = wrap(part, getattr(owner, name))
    try:
        yield
    finally:
        for _, owner, name in methods:
            del owner.__dict__[name]


@contextmanager
def timed_parts(parts: Methods, device: torch.device) -> Iterator[dict[str, float]]:
    """Measure what the parts of a network take while it runs.

    Args:
        parts: What is measured.
        device: Where it runs; on CUDA every call waits for the device.

    Yields:
        Seconds by part, complete at the end of the block.
    """
    elapsed: dict[str, float] = defaultdict(float)

    def measured(part: str, method: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            results = []
            elapsed[part] += seconds(
                lambda: results.append(method(*args, **kwargs)), device
            )
            return results[0]

        return run

    with wrapped_methods(parts, measured):
        yield elapsed


def operator_times(
    step: Step, device: torch.device, number: int = 15
) -> dict[str, float]:
    """Seconds of the operators that take most of a step, without those that they call,
    and of all others."""
    on_cuda = device.type == 'cuda'
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=kinds) as profiler:
        step()
    key = 'self_device_time_total' if on_cuda else 'self_cpu_time_total'
    times = {row.key: getattr(row, key) / 1e6 for row in profiler.key_averages()}
    ranked = sorted(times, key=times.__getitem__, reverse=True)
    shown = {name: times[name] for name in ranked[:number]}
    return shown | {'others': sum(times[name] for name in ranked[number:])}


def machine(device: torch.device) -> str:
    """The machine in words: processor, cores, threads and GPU."""
    name = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo') as stream:
            lines = [line for line in stream if line.startswith('model name')]
        name = lines[0].partition(':')[2].strip()
    except (OSError, IndexError):
        pass
    words = f'{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads'
    if device.type == 'cuda':
        words += f', {torch.cuda.get_device_name(device)}'
    return words


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to a type of 16 bits; float32 as it is."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)
