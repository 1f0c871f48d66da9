"""How a tool uses processor and memory.

The threads of an operator share its work evenly and wait for each other. Where another
process takes a part of one core, the others wait, too, and by default they spin while
they do: if one of two cores is busy, a training step with two threads takes twice as long
as with one. So a tool that starts on a busy machine uses only the cores
that are free.

glibc returns large blocks of memory to the system as soon as they are freed, to get them
back page by page for the next tensor, which takes a fifth of a forward pass on the CPU.
So a tool keeps them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from dataclasses import dataclass

import torch
from mmengine.device import get_device
from mmengine.logging import print_log

#: Environment variables by which a user chooses the threads, and the allocator.
THREAD_CHOICES = (
    'OMP_NUM_THREADS',
    'MKL_NUM_THREADS',
    'OMP_WAIT_POLICY',
    'GOMP_SPINCOUNT',
)
ALLOCATOR_CHOICES = (
    'GLIBC_TUNABLES',
    'LD_PRELOAD',
    'MALLOC_MMAP_MAX_',
    'MALLOC_MMAP_THRESHOLD_',
    'MALLOC_TRIM_THRESHOLD_',
)

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@dataclass(frozen=True)
class CoreUse:
    """How much the cores have been used until a moment.

    Attributes:
        moment: Seconds on a monotonic clock.
        by_others: Seconds of all cores that other processes have used; None if the system
            does not tell.
    """

    moment: float
    by_others: float | None


def core_use() -> CoreUse:
    """Use of the cores that this process may run on, from Linux's /proc/stat."""
    moment = time.monotonic()
    try:
        names = {f'cpu{core}' for core in os.sched_getaffinity(0)}
        with open('/proc/stat') as stream:
            rows = [line.split() for line in stream]
    except (AttributeError, OSError):
        return CoreUse(moment, None)
    # User, nice, system, idle, iowait, irq, softirq, steal.
    ticks = [list(map(int, row[1:9])) for row in rows if row[0] in names]
    used = sum(sum(row) - row[3] - row[4] for row in ticks) / os.sysconf('SC_CLK_TCK')
    own = os.times()
    return CoreUse(moment, used - own.user - own.system)


# From here to the run of a tool, its own work takes some seconds of a single core.
_AT_START = core_use()


def share_cores(start: CoreUse = _AT_START) -> None:
    """Let PyTorch use as many threads as there are free cores, unless the environment
    says what it should do.

    Args:
        start: Use some seconds ago, by default when this module was imported; how many
            cores are busy is the mean since then.
    """
    now = core_use()
    if start.by_others is None or now.by_others is None:
        return
    if any(name in os.environ for name in THREAD_CHOICES):
        return
    rate = (now.by_others - start.by_others) / (now.moment - start.moment)
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    busy = round(rate)
    free = max(cores - busy, 1)
    if free < threads:
        torch.set_num_threads(free)
        print_log(
            f'Other processes keep {busy} of {cores} cores busy: PyTorch runs with '
            f'{free} instead of {threads} threads; set OMP_NUM_THREADS to choose',
            logger='current',
        )


def keep_freed_memory() -> None:
    """Let a process that computes on the CPU keep the memory of tensors that are gone,
    unless the environment says what the allocator should do.

    The process then holds the most memory that it has needed. Only with glibc.
    """
    if get_device() != 'cpu' or any(name in os.environ for name in ALLOCATOR_CHOICES):
        return
    if platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def tune_process() -> None:
    """What every tool does before its run."""
    share_cores()
    keep_freed_memory()
