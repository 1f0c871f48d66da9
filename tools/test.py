"""Tests a trained model: metrics, predictions as a file, images with predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, RUNNERS
from mmengine.runner import Runner

from piip_mm.compat import quiet_logger
from piip_mm.config_types import resolve_type
from piip_mm.deploy import compile_model
from piip_mm.engine import check_classes, check_coco, check_data
from piip_mm.engine.fuse_hook import fuse_before_test
from piip_mm.engine.host_models import unwrapped
from piip_mm.engine.launch import (
    CHECKPOINT_ERRORS,
    add_common_arguments,
    load_config,
    process_group,
    user_errors,
)
from piip_mm.engine.options import accept_published_checkpoints, checkpoint_names
from piip_mm.engine.tta import enable_tta
from piip_mm.engine.tuning import tune_process


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
        help='draw predictions next to the ground truth into this directory; a relative '
        'one is made below work_dir/timestamp',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that a window stays open'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='fuse layers of the loaded model, which makes it faster and changes its '
        'results by rounding only',
    )
    args = parser.parse_args()
    if args.out is not None and Path(args.out).suffix not in ('', '.pkl', '.pickle'):
        parser.error(
            f'--out {args.out}: the dump file must be a pkl file (for segmentation: a '
            'directory)'
        )
    return args


def write_predictions(runner: Runner, out: str) -> None:
    """Let a test write its predictions: pickled, or for mmseg as label maps, since the
    scores of all pixels of all images would fit in no memory.

    Raises:
        ValueError: If ``out`` is not of the kind that the task writes.
    """
    scope = runner.cfg.get('default_scope')
    metrics = runner.test_evaluator.metrics
    is_file = out.endswith(('.pkl', '.pickle'))
    if scope != 'mmseg':
        if not is_file:
            raise ValueError(f'--out {out}: expected a pickle file, FILE.pkl')
        # mmdet's own one encodes masks.
        kind = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        metrics.append(METRICS.build(dict(type=kind, out_file_path=out)))
        return
    writers = [metric for metric in metrics if hasattr(metric, 'output_dir')]
    if is_file or not writers:
        raise ValueError(
            f'--out {out}: segmentations are written by an IoUMetric in test_evaluator '
            'as one PNG file per image; give a directory'
        )
    Path(out).mkdir(parents=True, exist_ok=True)
    writers[0].output_dir = out


def enable_drawing(cfg: Config, args: argparse.Namespace) -> None:
    """Draw predictions next to the ground truth: in windows, as files, or both.

    Raises:
        ValueError: If the config has no visualization hook, or no visualizer.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None or cfg.get('visualizer') is None:
        raise ValueError(
            "--show and --show-dir need default_hooks.visualization=dict(type='"
            "DetVisualizationHook') (for mmseg and mmpretrain 'DrawPredictionsHook') and "
            "visualizer=dict(type='DetLocalVisualizer', 'SegLocalVisualizer' or "
            "'UniversalVisualizer') in the config"
        )
    kind = resolve_type(hook, HOOKS, cfg.get('default_scope'))
    if getattr(kind, '__name__', '') in ('SegVisualizationHook', 'VisualizationHook'):
        hook.clear()
        hook.type = 'DrawPredictionsHook'
    hook.draw = True
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        hook.test_out_dir = args.show_dir


def main() -> None:
    """Check everything that can be checked, then test."""
    args = parse_args()
    with user_errors():
        cfg = load_config(args)
        cfg.load_from, cfg.resume = args.checkpoint, False
        check_data(cfg, 'test')
        checkpoint_names(args.checkpoint)
        check_coco(cfg, 'test')
        if args.show or args.show_dir:
            enable_drawing(cfg, args)
        if args.tta:
            enable_tta(cfg)
        # Test-time augmentation goes without masks.
        ignore = ('roi_head.mask_head.',) if args.tta else ()
        accept_published_checkpoints(cfg, strict=True, ignore=ignore)
    with process_group(cfg):
        runner = RUNNERS.build(cfg)
        quiet_logger(runner.logger)
        tune_process()
        if args.compile:
            with user_errors():
                compile_model(unwrapped(runner.model))
        with user_errors():
            check_classes(runner, 'test')
            if args.fuse:
                fuse_before_test(runner)
            if args.out is not None:
                write_predictions(runner, args.out)
        with user_errors(CHECKPOINT_ERRORS):
            runner.test()


if __name__ == '__main__':
    main()
