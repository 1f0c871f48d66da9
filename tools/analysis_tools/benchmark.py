"""Measures latency, throughput and memory of configs, in turns in one run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from rich import box
from rich.console import Console
from rich.table import Table

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
    alternate,
    machine,
    measure_ceilings,
    operator_times,
    peak_memory,
    seconds,
    timed_parts,
)
from piip_mm.deploy import COMPILE_MODES
from piip_mm.engine.launch import (
    add_cfg_options,
    add_shape,
    positive,
    positive_number,
    read_config,
    user_errors,
)
from piip_mm.engine.tuning import keep_freed_memory
from piip_mm.ops import DEFORM_ATTN_BACKENDS, check_backend

DTYPES = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
}

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
    parser.add_argument('--batch-size', type=positive, nargs='+', default=[1])
    parser.add_argument('--dtype', choices=DTYPES, nargs='+', default=['fp32'])
    add_shape(parser, 'img_size')
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
    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    parser.add_argument(
        '--device',
        choices=devices,
        default=devices[-1],
        help='where to run; cuda only if PyTorch finds a GPU',
    )
    parser.add_argument('--threads', type=positive, help='threads of the CPU')
    parser.add_argument('--repeats', type=positive, default=10)
    parser.add_argument(
        '--breakdown', action='store_true', help='time by part and by operator'
    )
    parser.add_argument('--out', metavar='FILE.json', help='write all numbers')
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.fuse and args.mode != ['forward']:
        parser.error(
            f'--fuse with --mode {" ".join(args.mode)}: a fused model cannot be trained; '
            'use --mode forward'
        )
    if args.backend == 'mmcv' and args.device != 'cuda':
        parser.error(f'--backend mmcv with --device {args.device}: it runs on cuda only')
    if args.out and not Path(args.out).absolute().parent.is_dir():
        parser.error(f'--out {args.out}: there is no such folder; make it first')
    return args


def main() -> None:
    """Measure and print."""
    args = parse_args()
    MMLogger.get_instance('benchmark', log_level='WARNING')
    device = torch.device(args.device)
    with user_errors((RuntimeError,)):
        check_backend(args.backend or 'auto')
    if not args.system_allocator:
        keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    report: dict[str, Any] = dict(
        machine=machine(device),
        versions={name: version(name) for name in ('piip_mm', 'torch', 'mmengine')},
        command=shlex.join(['python', *sys.argv]),
        runs=[],
    )
    console.print(report['machine'])
    console.print(', '.join(f'{name} {v}' for name, v in report['versions'].items()))
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
        report['runs'].append(dict(title=title, **settings, **run))
        console.print(results_table(title, run))
        if args.plain and mode == 'forward' and variant.dtype == torch.float32:
            report['runs'][-1]['differences'] = compare(subjects, console)
        if args.breakdown:
            for name, subject in subjects.items():
                print_breakdown(name, subject, device, console)
        if args.out:
            # After every run, so that an interruption leaves what was measured.
            Path(args.out).write_text(json.dumps(report, indent=2))


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
    steps = [subject.step for subject in subjects.values()]
    timings = alternate(steps, variant.device, repeats)
    rows = [
        dict(
            name=name,
            config=name.partition(', ')[0],
            shape=subject.shape,
            branches=subject.branches,
            seconds=timing.seconds,
            median=timing.median,
            spread=timing.spread,
            images_per_second=variant.batch_size / timing.median,
            peak_bytes=peak_memory(subject.step, variant.device),
            multiply_adds=subject.flops,
        )
        for (name, subject), timing in zip(subjects.items(), timings, strict=True)
    ]
    return dict(
        products_per_second=ceilings.products,
        copied_bytes_per_second=ceilings.copies,
        rows=rows,
    )


def results_table(title: str, run: dict[str, Any]) -> Table:
    """The results of a run."""
    rate = run['products_per_second']
    caption = (
        f'Ceilings: products {2 * rate / 1e9:,.0f} GFLOP/s, '
        f'copies {run["copied_bytes_per_second"] / 1e9:,.0f} GB/s. '
        '1 FLOP of the column is a multiply-add, as everywhere in this package; '
        '"of products" is their rate over that of a large product.'
    )
    result = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column('', no_wrap=True)
    for name in ('ms', '+-', 'images/s', 'peak MiB', 'GFLOPs', 'of products', 'ratio'):
        result.add_column(name, justify='right', no_wrap=True)
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
    name: str, subject: Subject, device: torch.device, console: Console
) -> None:
    """Time by part, unless compiled, and by operator."""
    if COMPILED not in name:
        parts = network_parts(subject.network)
        with timed_parts(parts, device) as elapsed:
            total = seconds(subject.step, device)
        elapsed = dict(elapsed, rest=total - sum(elapsed.values()))
        console.print(times_table(f'{name}: parts', elapsed))
    operators = operator_times(subject.step, device)
    console.print(times_table(f'{name}: operators', operators))


def times_table(title: str, times: dict[str, float]) -> Table:
    """Milliseconds by name, and their share."""
    result = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column('', no_wrap=True)
    for column in ('ms', 'share'):
        result.add_column(column, justify='right')
    total = sum(times.values())
    for name, value in times.items():
        result.add_row(name, f'{value * 1000:,.1f}', f'{value / total:.1%}')
    return result


if __name__ == '__main__':
    main()
