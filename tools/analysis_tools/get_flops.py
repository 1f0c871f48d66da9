"""Prints parameters and FLOPs of a config by part; needs no weights and no GPU."""

from __future__ import annotations

import argparse
import sys

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console

from piip_mm import analysis
from piip_mm.analysis import report
from piip_mm.engine.launch import user_errors


def parse_args() -> argparse.Namespace:
    """Arguments of mmdetection's tools/analysis_tools/get_flops.py, where they apply."""
    parser = argparse.ArgumentParser(
        description='Parameters and FLOPs of a config by part',
        epilog=f'{report.FLOP} Columns: {" ".join(report.column_notes())}',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='height and width of the input in pixels, one value for a square; for the '
        'column "as run" and the heads, by default img_size of the (first) branch',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    args = parser.parse_args()
    if args.shape is not None and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(
            f'--shape {" ".join(map(str, args.shape))}: expected one or two positive '
            'numbers'
        )
    return args


def main() -> None:
    """Count and print."""
    args = parse_args()
    # Only warnings: the tables are what is to be read.
    MMLogger.get_instance('get_flops', log_level='WARNING')
    with user_errors():
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        if 'backbone' not in cfg.get('model', {}):
            raise ValueError(f'{args.config} has no model.backbone to count')
        model = analysis.build_on_meta(cfg.model)
        shape = analysis.configured_shape(model.backbone)
        if args.shape is not None:
            shape = args.shape[0], args.shape[-1]
        heads = None
        if hasattr(model, 'head'):
            columns = analysis.count_classifier(model, shape)
        else:
            columns = analysis.count_backbone(model.backbone, shape)
            heads = analysis.count_heads(model, shape)

    # Wide enough for the tables where the output goes into a file or a pipe.
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(f'{args.config}, input {shape[0]} x {shape[1]} (H x W)')
    console.print(report.backbone_table(columns))
    notes = [report.FLOP, *report.column_notes()]
    if heads is not None:
        console.print(report.heads_table(heads))
        notes.append(report.HEADS)
    num_params = sum(p.numel() for p in model.parameters())
    for line in (report.memory_note(num_params), *notes):
        console.print(line)


if __name__ == '__main__':
    main()
