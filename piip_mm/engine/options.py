"""Command-line switches of the tools, as changes of the config."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from piip_mm.weights.source import load_weights

from .data_check import (
    metric_configs,
    pretrained_parts,
    pretrained_paths,
)


def enable_amp(cfg: Config) -> None:
    """Train with automatic mixed precision, in bfloat16 unless the config says else.

    bfloat16 has the exponents of float32 and needs no loss scaling, so the scale is 1
    there; float16 keeps MMEngine's dynamic scale.
    """
    wrapper = cfg.optim_wrapper
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('dtype', 'bfloat16')
    is_bf16 = wrapper.dtype == 'bfloat16'
    wrapper.setdefault('loss_scale', 1.0 if is_bf16 else 'dynamic')


def check_amp_device(cfg: Config) -> None:
    """Raise ``ValueError`` if the config asks for AMP where MMEngine has none."""
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (mixed precision) needs a GPU, and "
            'PyTorch finds none here. Train in float32: without --amp, or with a config '
            "whose optim_wrapper has type='OptimWrapper' and neither dtype nor "
            'loss_scale (in a config of your own: optim_wrapper=dict(_delete_=True, '
            "type='OptimWrapper', ...) with the constructor, paramwise_cfg and optimizer "
            'of the recipe)'
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        ValueError: If the config does not name the base batch size.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            'Can not find "auto_scale_lr.base_batch_size" in your configuration file; '
            'set it to the batch size that the learning rate was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from the latest checkpoint of the work directory ('auto') or a given one."""
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume


def accept_published_checkpoints(
    cfg: Config, *, strict: bool, ignore: Sequence[str] = ()
) -> None:
    """Let checkpoints of the published PIIP code load as they are.

    Args:
        cfg: The config; gets a :class:`PublishedCheckpointHook`.
        strict: Stop on a checkpoint that does not fit the model.
        ignore: Beginnings of names in the checkpoint that the model goes without.
    """
    hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if hook['type'] != 'PublishedCheckpointHook'
    ]
    hook = dict(type='PublishedCheckpointHook', strict=strict, ignore=ignore)
    cfg.custom_hooks = [*hooks, hook]


def skip_pretrained(cfg: Config) -> None:
    """Forget the pretrained weights of the parts where a checkpoint of the whole model
    is going to be loaded over them: ``load_from``, or a run that resumes."""
    checkpoint = cfg.get('load_from')
    if cfg.get('resume') and checkpoint is None:
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is None:
        return
    parts = list(pretrained_parts(cfg.model))
    for part in parts:
        part['init_cfg'] = None
    if parts:
        print_log(
            f'{len(parts)} pretrained weights are not loaded: {checkpoint} replaces them',
            logger='current',
        )


def fetch_pretrained(cfg: Config) -> None:
    """Download the pretrained weights of the model now, rather than inside the run.

    Raises:
        ConnectionError: If a download fails.
        ValueError: If a download is damaged, or timm has no such weights.
    """
    for path in pretrained_paths(cfg.model):
        if '://' in path:
            load_weights(path)


def enable_visualization(
    cfg: Config, *, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Draw predictions beside the ground truth: in windows, as files, or both.

    Args:
        cfg: The config; its visualization hook is switched on. The hooks of mmseg and
            mmpretrain are replaced by :class:`PictureHook`, which draws every image
            once, like mmdet's.
        show: Open a window for every image.
        show_dir: Directory of the pictures; a relative one is made below
            ``work_dir/timestamp``.
        wait_time: Seconds that a window stays open.

    Raises:
        ValueError: If the config has no visualization hook, or no visualizer.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need a hook that draws; add '
            "visualization=dict(type='DetVisualizationHook') to default_hooks (for mmseg "
            "and mmpretrain type='PictureHook')"
        )
    if hook.type in ('SegVisualizationHook', 'VisualizationHook'):
        cfg.default_hooks.visualization = hook = ConfigDict(type='PictureHook')
    if cfg.get('visualizer') is None:
        raise ValueError(
            '--show and --show-dir need a visualizer; add visualizer=dict(type='
            "'DetLocalVisualizer', 'SegLocalVisualizer' or 'UniversalVisualizer')"
        )
    hook.draw = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir:
        hook.test_out_dir = show_dir


def enable_output(cfg: Config, out: str) -> None:
    """Write the predictions of a test: pickled, or for mmseg as label maps.

    Args:
        cfg: The config; its ``test_evaluator`` is changed.
        out: A pickle file, or for mmseg a directory, since the scores of all pixels of
            all images would fit in no memory. The values of label maps are those of the
            data set's own (with ``reduce_zero_label`` one more than the label).

    Raises:
        ValueError: If ``out`` is not of the kind that the task writes.
    """
    is_file = out.endswith(('.pkl', '.pickle'))
    if cfg.get('default_scope') != 'mmseg':
        if not is_file:
            raise ValueError(f'--out {out}: expected a pickle file, FILE.pkl')
        # mmdet's own one encodes masks.
        kind = 'DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        evaluator = cfg.test_evaluator
        metrics = [*metric_configs(evaluator), dict(type=kind, out_file_path=out)]
        if 'metrics' in evaluator:
            evaluator.metrics = metrics
        else:
            cfg.test_evaluator = metrics
        return
    metrics = [m for m in metric_configs(cfg.test_evaluator) if m.type == 'IoUMetric']
    if is_file or not metrics:
        raise ValueError(
            f'--out {out}: segmentations are written by an IoUMetric in test_evaluator '
            'as one PNG file per image; give a directory'
        )
    metrics[0].output_dir = out
