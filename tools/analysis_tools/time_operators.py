"""Compare the time of mmcv's compiled operators with that of what takes their place.

Needs an environment with a compiled mmcv (`make test-compiled` makes .venv-compiled). The
two alternate in one process: first in training and test steps of a config, on images of
its data set, then one by one on the inputs that these steps gave them.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import mmcv._ext as extension
import torch
from mmengine.registry import RUNNERS
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from piip_mm.engine.launch import read_config, user_errors
from piip_mm.ops import mmcv_ext

OPERATORS = ('nms', 'roi_align_forward', 'roi_align_backward')
COMPILED = {name: getattr(extension, name) for name in OPERATORS}
REPLACED = {name: getattr(mmcv_ext, name) for name in OPERATORS}


@contextmanager
def operators(functions: dict[str, Callable]) -> Iterator[None]:
    """Let mmcv run these functions."""
    before = {name: getattr(extension, name) for name in functions}
    for name, function in functions.items():
        setattr(extension, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(extension, name, function)


def seconds(function: Callable[[], Any]) -> float:
    """Time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def alternate(call: Callable[[], Any], repeats: int, name: str) -> tuple[float, float]:
    """Median seconds of a call with the compiled operators, and with the others."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in tqdm(range(repeats + 1), desc=name, leave=False):
        for functions, column in zip((COMPILED, REPLACED), times, strict=True):
            with operators(functions):
                elapsed = seconds(call)
            # The first one warms up.
            if index:
                column.append(elapsed)
    return median(times[0]), median(times[1])


def recorded_calls(call: Callable[[], Any]) -> dict[str, list[tuple[tuple, dict]]]:
    """Arguments of the operators during a call."""
    calls: dict[str, list[tuple[tuple, dict]]] = {name: [] for name in OPERATORS}

    def recording(name: str) -> Callable:
        def function(*args: Any, **kwargs: Any) -> Any:
            copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
            calls[name].append((tuple(copies), kwargs))
            return COMPILED[name](*args, **kwargs)

        return function

    with operators({name: recording(name) for name in OPERATORS}):
        call()
    return calls


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a detector')
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--checkpoint', help='weights, for realistic detections')
    args = parser.parse_args()
    if not getattr(extension, 'IS_COMPILED', True):
        raise SystemExit('error: this mmcv is not compiled; see make test-compiled')
    with user_errors():
        cfg = read_config(args.config, {})
        cfg.work_dir = 'work_dirs/time_operators'
        cfg.load_from = args.checkpoint
        runner = RUNNERS.build(cfg)
        runner.load_or_resume()
    model = runner.model
    batches = {
        kind: next(iter(runner.build_dataloader(cfg[f'{kind}_dataloader'])))
        for kind in ('train', 'test')
    }

    def training_step() -> None:
        data = model.data_preprocessor(batches['train'], True)
        losses, _ = model.parse_losses(model(**data, mode='loss'))
        losses.backward()
        model.zero_grad()

    def test_step() -> None:
        with torch.no_grad():
            model.test_step(batches['test'])

    table = Table('', 'calls', 'compiled, ms', 'PyTorch, ms', 'ratio')
    steps = {'training step': training_step, 'test step': test_step}
    for step, call in steps.items():
        model.train(step == 'training step')
        add_row(table, step, 1, *alternate(call, args.repeats, step))
        for name, calls in recorded_calls(call).items():

            def replay(name: str = name, calls: list = calls) -> None:
                for given, kwargs in calls:
                    getattr(extension, name)(*given, **kwargs)

            if calls:
                times = alternate(replay, args.repeats, name)
                add_row(table, f'  {name}', len(calls), *times)
    console = Console()
    console.print(
        f'{args.config}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, '
        f'{platform.machine()}, medians of {args.repeats}'
    )
    console.print(table)


def add_row(table: Table, name: str, calls: int, compiled: float, other: float) -> None:
    """Add times in seconds."""
    milliseconds = [f'{value * 1000:.1f}' for value in (compiled, other)]
    table.add_row(name, str(calls), *milliseconds, f'{other / compiled:.2f}')


if __name__ == '__main__':
    main()
