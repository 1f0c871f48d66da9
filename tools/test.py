"""Tests a trained model: metrics, predictions as a file, pictures."""

from __future__ import annotations

import argparse

from mmengine.registry import METRICS

from piip_mm.engine import check_data
from piip_mm.engine.launch import (
    add_common_arguments,
    build_runner,
    load_config,
    process_group,
    user_errors,
)
from piip_mm.engine.options import (
    accept_published_checkpoints,
    enable_tta,
    enable_visualization,
)


def parse_args() -> argparse.Namespace:
    """Arguments of mmdetection's tools/test.py."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='FILE.pkl',
        help='write the predictions to this pickle file, for evaluation later',
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
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: the dump file must be a pkl file')
    return args


def main() -> None:
    """Check everything that can be checked, then test."""
    args = parse_args()
    with user_errors():
        cfg = load_config(args)
        cfg.load_from, cfg.resume = args.checkpoint, False
        check_data(cfg, 'test')
        if args.show or args.show_dir:
            enable_visualization(
                cfg,
                show=args.show,
                show_dir=args.show_dir,
                wait_time=args.wait_time,
            )
        if args.tta:
            enable_tta(cfg)
        # Test-time augmentation goes without masks.
        ignore = ('roi_head.mask_head.',) if args.tta else ()
        accept_published_checkpoints(cfg, strict=True, ignore=ignore)
    with process_group(cfg):
        runner = build_runner(cfg)
        if args.out is not None:
            # mmdet's own one encodes masks.
            kind = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
            dump = METRICS.build(dict(type=kind, out_file_path=args.out))
            runner.test_evaluator.metrics.append(dump)
        with user_errors():
            runner.load_or_resume()
        runner.test()


if __name__ == '__main__':
    main()
