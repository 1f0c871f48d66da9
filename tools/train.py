"""Trains a model from a config file."""

from __future__ import annotations

import argparse

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
    check_amp_device,
    enable_amp,
    enable_auto_scale_lr,
    fetch_pretrained,
    set_resume,
    skip_pretrained,
)


def parse_args() -> argparse.Namespace:
    """Arguments of mmdetection's tools/train.py."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision, in bfloat16 unless the config says otherwise; '
        'needs a GPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint or, without a value, from the latest one in the '
        'work directory',
    )
    return parser.parse_args()


def main() -> None:
    """Check everything that can be checked, then train."""
    args = parse_args()
    with user_errors():
        cfg = load_config(args)
        if args.amp:
            enable_amp(cfg)
        if args.auto_scale_lr:
            enable_auto_scale_lr(cfg)
        set_resume(cfg, args.resume)
        skip_pretrained(cfg)
        accept_published_checkpoints(cfg, strict=False)
        check_data(cfg, 'train')
        check_classes(cfg, 'train')
        check_amp_device(cfg)
        if args.launcher == 'none':
            fetch_pretrained(cfg)
    with process_group(cfg):
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
