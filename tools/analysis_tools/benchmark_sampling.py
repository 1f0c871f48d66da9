"""Measures the sampling core of deformable attention: every backend that can run, on the
shapes of the interactions of a config."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from typing import Any

import torch
from rich.table import Table

from piip_mm.analysis.measure import build_on_meta, configured_shape
from piip_mm.analysis.sampling import find_calls, random_call, run_calls
from piip_mm.analysis.subject import MODES
from piip_mm.analysis.timing import measure_ceilings
from piip_mm.engine.benchmarks import (
    DTYPES,
    Report,
    add_measuring_arguments,
    measure_rows,
    results_table,
)
from piip_mm.engine.launch import read_config, user_errors
from piip_mm.engine.tuning import keep_freed_memory
from piip_mm.ops import runnable_backends


def parse_args() -> argparse.Namespace:
    """Arguments."""
    parser = argparse.ArgumentParser(
        description='Latency and memory of the sampling core of deformable attention',
        epilog='Inputs are random. All calls of a forward pass of the backbone run one '
        'after another, each with tensors of its own, without ("forward") and with their '
        'backward passes ("training"). The backends that can run here are run in turns, '
        'and ratios are to the first one.',
    )
    parser.add_argument('config', metavar='CONFIG')
    add_measuring_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    device = torch.device(args.device)
    keep_freed_memory()
    report = Report(args)
    with user_errors():
        cfg = read_config(args.config, args.cfg_options)
        backbone = build_on_meta(cfg.model.get('backbone', {}))
        shapes = find_calls(backbone, args.shape or configured_shape(backbone))
    copies = measure_ceilings(device, torch.float32).copies
    backends = runnable_backends(device.type)
    for dtype, batch_size in product(args.dtype, args.batch_size):
        torch.manual_seed(0)
        calls = [random_call(x, batch_size, DTYPES[dtype], device) for x in shapes]
        for mode in MODES:
            steps = {name: partial(run_calls, calls, name, mode) for name in backends}
            run = dict(
                title=f'{len(calls)} calls, {mode}, batch {batch_size}, {dtype}',
                copied_bytes_per_second=copies,
                bytes=sum(call.num_bytes(mode) for call in calls),
                rows=measure_rows(steps, device, args.repeats),
            )
            report.runs.append(run)
            report.console.print(times_table(run))
            report.write()


def times_table(run: dict[str, Any]) -> Table:
    """The results of a run."""
    copies = run['copied_bytes_per_second']
    caption = (
        f'{run["bytes"] / 2**20:,.0f} MiB have to be moved; "of copies" is the rate at '
        f'which they are, over that of a large copy, {copies / 1e9:,.0f} GB/s.'
    )
    result = results_table(
        run['title'], caption, 'ms', '+-', 'peak MiB', 'of copies', 'ratio'
    )
    first = run['rows'][0]['median']
    for row in run['rows']:
        result.add_row(
            row['name'],
            f'{row["median"] * 1000:,.2f}',
            f'{row["spread"]:.1%}',
            f'{row["peak_bytes"] / 2**20:,.0f}',
            f'{run["bytes"] / row["median"] / copies:.1%}',
            f'{row["median"] / first:.3f}',
        )
    return result


if __name__ == '__main__':
    main()
