"""What the tools change in a config before a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import find_latest_checkpoint

from piip_mm.config_types import resolve_type
from piip_mm.weights.source import load_weights, unwrap_state_dict

from .checkpoint_hook import PublishedCheckpointHook, has_backbone
from .data_check import pretrained_parts, pretrained_paths


def accept_published_checkpoints(
    cfg: Config, *, strict: bool, ignore: Sequence[str] = ()
) -> None:
    """Let checkpoints of the published PIIP code load as they are.

    Args:
        cfg: The config; gets a :class:`PublishedCheckpointHook`.
        strict: Stop on a checkpoint that does not fit the model.
        ignore: Prefixes of names in the checkpoint that the model does not have.
    """
    hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if resolve_type(hook, HOOKS) is not PublishedCheckpointHook
    ]
    hook = dict(type='PublishedCheckpointHook', strict=strict, ignore=ignore)
    cfg.custom_hooks = [*hooks, hook]


def skip_pretrained(cfg: Config) -> None:
    """Remove pretrained weights from the config if a checkpoint replaces them: that of a
    run that is resumed, or ``load_from`` if the file has the backbone of the model.

    Raises:
        ValueError: If ``load_from`` contains no weights.
    """
    checkpoint = cfg.get('load_from')
    if cfg.get('resume') and checkpoint is None:
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is None:
        return
    if not cfg.get('resume') and not _file_has_backbone(checkpoint):
        print_log(
            f'{checkpoint} does not have the backbone of the model, which keeps its '
            'pretrained weights',
            logger='current',
        )
        return
    for _, part, _ in pretrained_parts(cfg.model):
        part['init_cfg'] = None
    print_log(f'{checkpoint} replaces the pretrained weights', logger='current')


def _file_has_backbone(checkpoint: str) -> bool:
    """Whether a file has a backbone of ours; assumed of one that is not there, which
    :func:`check_data` reports."""
    if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        return True
    return has_backbone(unwrap_state_dict(load_weights(checkpoint)))


def fetch_pretrained(cfg: Config) -> None:
    """Download the pretrained weights of the model before the run starts.

    Raises:
        ConnectionError: If a download fails.
        ValueError: If a download is damaged, or timm has no such weights.
    """
    for path in pretrained_paths(cfg.model):
        if '://' in path:
            load_weights(path)
