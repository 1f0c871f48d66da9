"""Measures every published detector, one after another, and prints latency next to FLOPs.

Each config gets a process of its own and a JSON file, so that an interrupted run
continues with the next one. A config that cannot be run, for example because its model
does not fit into memory, is reported and left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.logging import MMLogger

from piip_mm.analysis import build_on_meta
from piip_mm.engine.launch import positive_number

ROOT = Path(__file__).parents[2]
TOOL = Path(__file__).with_name('benchmark.py')

HEADER = (
    'config',
    'published GFLOPs',
    'GFLOPs as run',
    'ms',
    'GFLOPs fused',
    'ms fused',
    'peak MiB fused',
    'published box AP',
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what has no result yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder of the results')
    parser.add_argument(
        '--only', default='', metavar='TEXT', help='configs with this in their name'
    )
    parser.add_argument(
        '--max-params',
        type=positive_number,
        default=1e3,
        metavar='MILLIONS',
        help='leave out larger backbones, in millions of parameters (default 1000)',
    )
    args, options = parser.parse_known_args(argv)
    MMLogger.get_instance('benchmark_zoo', log_level='WARNING')
    models = load(ROOT / 'configs/det/metafile.yml')['Models']
    models = [model for model in models if args.only in model['Name']]
    if not models:
        parser.error(
            f'--only {args.only}: no published detector has this in its name; see '
            'docs/model_zoo.md for the names'
        )
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in models:
        name = model['Name']
        if num_parameters(ROOT / model['Config']) > args.max_params * 1e6:
            continue
        file = args.out / f'{name}.json'
        if not is_complete(file):
            print(f'== {name}', file=sys.stderr, flush=True)
            command = [sys.executable, str(TOOL), str(ROOT / model['Config']), '--fuse']
            done = subprocess.run(
                [*command, *options, '--out', str(file)], stdout=subprocess.DEVNULL
            )
            if done.returncode:
                print(f'{name}: failed, see above', file=sys.stderr)
                continue
        rows.append(make_row(model, json.loads(file.read_text())))
    for cells in (HEADER, ['---'] * len(HEADER), *rows):
        print(f'| {" | ".join(cells)} |')


def num_parameters(config: Path) -> int:
    """Parameters of the backbone of a config."""
    backbone = build_on_meta(Config.fromfile(config).model.backbone)
    return sum(param.numel() for param in backbone.parameters())


def is_complete(file: Path) -> bool:
    """Whether a config has been measured; the benchmark writes after every run."""
    return file.exists() and bool(json.loads(file.read_text())['runs'])


def make_row(model: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """Cells of a config: the first run of its report."""
    run, fused = report['runs'][0]['rows'][:2]
    metrics = model.get('Results') or [{}]
    return [
        model['Name'],
        f'{model["Metadata"].get("FLOPs (G)", "-")}',
        f'{run["multiply_adds"] / 1e9:,.0f}',
        f'{run["median"] * 1000:,.0f}',
        f'{fused["multiply_adds"] / 1e9:,.0f}',
        f'{fused["median"] * 1000:,.0f}',
        f'{fused["peak_bytes"] / 2**20:,.0f}',
        f'{metrics[0].get("Metrics", {}).get("box AP", "-")}',
    ]


if __name__ == '__main__':
    main()
