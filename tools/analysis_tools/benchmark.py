"""Measures latency, throughput and memory of configs, in turns in one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from piip_mm.analysis.memory import kept_for_backward
from piip_mm.analysis.subject import (
    MODES,
    PARTS,
    Subject,
    Variant,
    build_model,
    build_subject,
    max_difference,
    network_parts,
    scaled_shape,
)
from piip_mm.analysis.timing import (
    Ceilings,
    measure_ceilings,
    operator_times,
    seconds,
    timed_parts,
)
from piip_mm.deploy import COMPILE_MODES
from piip_mm.engine.benchmarks import (
    DTYPES,
    Report,
    add_measuring_arguments,
    measure_rows,
    results_table,
)
from piip_mm.engine.launch import positive_number, read_config, user_errors
from piip_mm.engine.tuning import keep_freed_memory
from piip_mm.ops import DEFORM_ATTN_BACKENDS, check_backend

#: What a subject's name ends with.
PLAIN, FUSED, COMPILED = ', plain', ', fused', ', compiled'

#: What the parts are called in the tables.
WHAT = {'backbone': 'backbone', 'neck': 'backbone and neck', 'model': 'whole model'}

#: How far outputs in float32 may be from the plain reference, over their maximum.
TOLERANCE = 2e-5


def parse_args() -> argparse.Namespace:
    """Arguments."""
    parser = argparse.ArgumentParser(
        description='Latency, throughput and memory of configs',
        epilog='Weights are random. Every combination of the options with several values '
        'is measured. All that is compared is run in turns, and ratios are to the first '
        'row of a table: the plain reference, if --plain is given, then --vs, then the '
        'configs.',
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--vs', metavar='CONFIG', help='compare with this config')
    parser.add_argument(
        '--plain',
        action='store_true',
        help='compare with the plain reference of each config: what the published code '
        'computes, in its way. The outputs are compared, too',
    )
    parser.add_argument('--part', choices=PARTS, default='neck', help='what is run')
    parser.add_argument('--mode', choices=MODES, nargs='+', default=['forward'])
    parser.add_argument(
        '--scale',
        type=positive_number,
        nargs='+',
        default=[1.0],
        metavar='FACTOR',
        help='factors of the size of the input, rounded to multiples of what the config '
        'pads images to',
    )
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=COMPILE_MODES,
        help='also measure the compiled model, in this mode',
    )
    parser.add_argument(
        '--fuse', action='store_true', help='also measure the fused model (forward)'
    )
    parser.add_argument(
        '--system-allocator',
        action='store_true',
        help='return freed memory to the system, as Python does and our tools do not',
    )
    parser.add_argument(
        '--backend',
        choices=DEFORM_ATTN_BACKENDS,
        help='of deformable attention, instead of that of the config',
    )
    parser.add_argument(
        '--breakdown',
        action='store_true',
        help='time by part and by operator, and in training the memory of activations',
    )
    add_measuring_arguments(parser)
    args = parser.parse_args()
    if args.fuse and args.mode != ['forward']:
        parser.error(
            f'--fuse with --mode {" ".join(args.mode)}: a fused model cannot be trained; '
            'use --mode forward'
        )
    if args.backend in ('mmcv', 'deformops') and args.device != 'cuda':
        parser.error(
            f'--backend {args.backend} with --device {args.device}: it runs on cuda only'
        )
    return args


def main() -> None:
    """Measure and print."""
    args = parse_args()
    device = torch.device(args.device)
    with user_errors((RuntimeError,)):
        check_backend(args.backend or 'auto')
    if not args.system_allocator:
        keep_freed_memory()
    report = Report(args)
    console = report.console
    ceilings: dict[torch.dtype, Ceilings] = {}
    sweep = product(args.mode, args.dtype, args.batch_size, args.scale)
    for mode, dtype, batch_size, scale in sweep:
        variant = Variant(
            part=args.part,
            mode=mode,
            batch_size=batch_size,
            shape=args.shape,
            dtype=DTYPES[dtype],
            device=device,
            backend=args.backend,
        )
        with user_errors():
            subjects = make_subjects(args, variant, scale)
        if variant.dtype not in ceilings:
            ceilings[variant.dtype] = measure_ceilings(device, variant.dtype)
        run = measure(subjects, variant, ceilings[variant.dtype], args.repeats)
        title = f'{WHAT[args.part]}, {mode}, batch {batch_size}, {dtype}'
        if args.scale != [1.0]:
            title += f', scale {scale:g}'
        settings = dict(
            part=args.part, mode=mode, batch_size=batch_size, dtype=dtype, scale=scale
        )
        report.runs.append(dict(title=title, **settings, **run))
        console.print(run_table(title, run))
        if args.plain and mode == 'forward' and variant.dtype == torch.float32:
            report.runs[-1]['differences'] = compare(subjects, console)
        if args.breakdown:
            for name, subject in subjects.items():
                print_breakdown(name, subject, variant, console)
        report.write()


def make_subjects(
    args: argparse.Namespace, variant: Variant, scale: float
) -> dict[str, Subject]:
    """What is compared, by name; the first one is what the ratios refer to."""
    subjects = {}
    for path in [args.vs, *args.configs] if args.vs else args.configs:
        cfg = read_config(path, args.cfg_options)
        model = build_model(cfg)
        if scale != 1:
            variant = replace(variant, shape=scaled_shape(model, args.shape, scale))
        variants = {PLAIN: replace(variant, plain=True)} if args.plain else {}
        variants[''] = variant
        if args.compile:
            variants[COMPILED] = replace(variant, compile_mode=args.compile)
        if args.fuse:
            variants |= {
                f'{FUSED}{remark}': replace(chosen, fused=True)
                for remark, chosen in variants.items()
                if not chosen.plain
            }
        for remark, chosen in variants.items():
            name = f'{Path(path).stem}{remark}'
            subjects[name] = build_subject(model, cfg.default_scope, chosen)
    return subjects


def measure(
    subjects: dict[str, Subject], variant: Variant, ceilings: Ceilings, repeats: int
) -> dict[str, Any]:
    """Time and memory of all subjects, ready for a JSON file."""
    steps = {name: subject.step for name, subject in subjects.items()}
    rows = measure_rows(steps, variant.device, repeats)
    for row, subject in zip(rows, subjects.values(), strict=True):
        row['config'] = row['name'].partition(', ')[0]
        row['shape'] = subject.shape
        row['branches'] = subject.branches
        row['images_per_second'] = variant.batch_size / row['median']
        row['multiply_adds'] = subject.flops
    return dict(
        products_per_second=ceilings.products,
        copied_bytes_per_second=ceilings.copies,
        rows=rows,
    )


def run_table(title: str, run: dict[str, Any]) -> Table:
    """The results of a run."""
    rate = run['products_per_second']
    caption = (
        f'Ceilings: products {2 * rate / 1e9:,.0f} GFLOP/s, '
        f'copies {run["copied_bytes_per_second"] / 1e9:,.0f} GB/s. '
        '1 FLOP of the column is a multiply-add, as everywhere in this package; '
        '"of products" is their rate over that of a large product.'
    )
    columns = ('ms', '+-', 'images/s', 'peak MiB', 'GFLOPs', 'of products', 'ratio')
    result = results_table(title, caption, *columns)
    first = run['rows'][0]['median']
    config = None
    for row in run['rows']:
        flops = row['multiply_adds']
        name, _, how = row['name'].partition(', ')
        if name != config:
            config = name
            result.add_row(config)
        result.add_row(
            f'  {how or "as it is"}',
            f'{row["median"] * 1000:,.1f}',
            f'{row["spread"]:.1%}',
            f'{row["images_per_second"]:.3g}',
            f'{row["peak_bytes"] / 2**20:,.0f}',
            '-' if flops is None else f'{flops / 1e9:,.1f}',
            '-' if flops is None else f'{flops / row["median"] / rate:.1%}',
            f'{row["median"] / first:.3f}',
        )
    return result


def compare(subjects: dict[str, Subject], console: Console) -> dict[str, float]:
    """Largest difference of each subject from its plain reference, over the maximum.

    Raises:
        SystemExit: If one exceeds :data:`TOLERANCE`.
    """
    differences = {}
    for name, plain in subjects.items():
        if not name.endswith(PLAIN):
            continue
        config = name.removesuffix(PLAIN)
        for remark in ('', COMPILED, FUSED, f'{FUSED}{COMPILED}'):
            if (other := f'{config}{remark}') in subjects:
                differences[other] = max_difference(subjects[other], plain)
    for name, difference in differences.items():
        console.print(f'{name}: differs from the plain reference by {difference:.1e}')
        if difference > TOLERANCE:
            raise SystemExit(f'error: {name}: more than {TOLERANCE}')
    return differences


def print_breakdown(
    name: str, subject: Subject, variant: Variant, console: Console
) -> None:
    """Time by part, in training also what each keeps, unless compiled; by operator."""
    if COMPILED not in name:
        parts = network_parts(subject.network)
        with timed_parts(parts, variant.device) as elapsed:
            total = seconds(subject.step, variant.device)
        times = dict(elapsed, rest=total - sum(elapsed.values()))
        console.print(shares_table(f'{name}: parts', 'ms', times, 1000))
        if variant.mode == 'training':
            kept = kept_for_backward(subject.step, subject.network, parts, 'rest')
            title = f'{name}: kept for the backward pass'
            console.print(shares_table(title, 'MiB', kept, 2**-20))
    operators = operator_times(subject.step, variant.device)
    console.print(shares_table(f'{name}: operators', 'ms', operators, 1000))


def shares_table(
    title: str, unit: str, values: Mapping[str, float], factor: float
) -> Table:
    """Values times a factor by name, and their shares."""
    result = results_table(title, None, unit, 'share')
    total = sum(values.values())
    for name, value in values.items():
        result.add_row(name, f'{value * factor:,.1f}', f'{value / total:.1%}')
    return result


if __name__ == '__main__':
    main()
