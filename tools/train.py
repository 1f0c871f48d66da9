"""Trains a model from a config file."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, RUNNERS

from piip_mm.compat import quiet_logger
from piip_mm.config_types import resolve_type
from piip_mm.deploy import compile_model
from piip_mm.engine import check_classes, check_coco, check_data
from piip_mm.engine.host_models import unwrapped
from piip_mm.engine.launch import (
    CHECKPOINT_ERRORS,
    add_common_arguments,
    load_config,
    process_group,
    user_errors,
)
from piip_mm.engine.options import (
    accept_published_checkpoints,
    fetch_pretrained,
    skip_pretrained,
)
from piip_mm.engine.tuning import tune_process


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
        help='resume from this checkpoint or, without a value, from the latest one in '
        'the work directory',
    )
    return parser.parse_args()


def apply_switches(cfg: Config, args: argparse.Namespace) -> None:
    """Put ``--amp``, ``--auto-scale-lr`` and ``--resume`` into the config.

    Raises:
        ValueError: If the config does not name the batch size that its learning rate was
            chosen for.
    """
    if args.amp:
        wrapper = cfg.optim_wrapper
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('dtype', 'bfloat16')
        # bfloat16 has the exponents of float32 and needs no loss scaling.
        is_bf16 = wrapper.dtype in ('bfloat16', torch.bfloat16)
        wrapper.setdefault('loss_scale', 1.0 if is_bf16 else 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                'Can not find "auto_scale_lr.base_batch_size" in your configuration '
                'file; set it to the batch size that the learning rate was chosen for'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume


def check_amp_device(cfg: Config) -> None:
    """Raise ``ValueError`` if the config asks for AMP where MMEngine has none."""
    kind = resolve_type(cfg.optim_wrapper, OPTIM_WRAPPERS)
    if kind is AmpOptimWrapper and get_device() == 'cpu':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (mixed precision) needs a GPU, and "
            'PyTorch finds none here. Train in float32: without --amp, or with a config '
            "whose optim_wrapper has type='OptimWrapper' and neither dtype nor "
            'loss_scale (in a config of your own: optim_wrapper=dict(_delete_=True, '
            "type='OptimWrapper', ...) with the constructor, paramwise_cfg and optimizer "
            'of the recipe)'
        )


def main() -> None:
    """Check everything that can be checked, then train."""
    args = parse_args()
    with user_errors():
        cfg = load_config(args)
        apply_switches(cfg, args)
        skip_pretrained(cfg)
        accept_published_checkpoints(cfg, strict=False)
        check_data(cfg, 'train')
        check_coco(cfg, 'train')
        check_amp_device(cfg)
        if args.launcher == 'none':
            fetch_pretrained(cfg)
    with process_group(cfg):
        runner = RUNNERS.build(cfg)
        quiet_logger(runner.logger)
        tune_process()
        if args.compile:
            with user_errors():
                compile_model(unwrapped(runner.model))
        with user_errors():
            check_classes(runner, 'train')
        with user_errors(CHECKPOINT_ERRORS):
            runner.train()


if __name__ == '__main__':
    main()
