"""Tests a trained model: metrics, predictions as a file, pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from piip_mm.engine import check_classes, check_data
from piip_mm.engine.launch import (
    add_common_arguments,
    build_runner,
    load_config,
    process_group,
    user_errors,
)
from piip_mm.engine.options import (
    accept_published_checkpoints,
    enable_output,
    enable_visualization,
)
from piip_mm.engine.tta import enable_tta


def parse_args() -> argparse.Namespace:
    """Arguments of mmdetection's tools/test.py."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='FILE.pkl',
        help='write the predictions to this pickle file, for evaluation later; for '
        'segmentation: as label maps into this directory',
    )
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        help='draw predictions beside the ground truth into this directory; a relative '
        'one is made below work_dir/timestamp',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that a window stays open'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    args = parser.parse_args()
    if args.out is not None and Path(args.out).suffix not in ('', '.pkl', '.pickle'):
        parser.error(
            f'--out {args.out}: the dump file must be a pkl file (for segmentation: a '
            'directory)'
        )
    return args


def main() -> None:
    """Check everything that can be checked, then test."""
    args = parse_args()
    with user_errors():
        cfg = load_config(args)
        cfg.load_from, cfg.resume = args.checkpoint, False
        check_data(cfg, 'test')
        check_classes(cfg, 'test')
        if args.show or args.show_dir:
            enable_visualization(
                cfg,
                show=args.show,
                show_dir=args.show_dir,
                wait_time=args.wait_time,
            )
        if args.out is not None:
            enable_output(cfg, args.out)
        if args.tta:
            enable_tta(cfg)
        # Test-time augmentation goes without masks.
        ignore = ('roi_head.mask_head.',) if args.tta else ()
        accept_published_checkpoints(cfg, strict=True, ignore=ignore)
    with process_group(cfg):
        runner = build_runner(cfg)
        with user_errors():
            runner.load_or_resume()
        runner.test()


if __name__ == '__main__':
    main()
