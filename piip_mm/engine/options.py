"""What the tools change in a config before a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import find_latest_checkpoint

from piip_mm.config_types import resolve_type
from piip_mm.weights.source import check_location, load_weights, read_weights

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
    run that is resumed, or for the backbone ``load_from`` if the file has that of the
    model. Other parts need not fit, and what does not keeps the pretrained weights.

    Raises:
        ValueError: See :func:`checkpoint_names`.
    """
    checkpoint = cfg.get('load_from')
    if cfg.get('resume') and checkpoint is None:
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is None:
        return
    names = checkpoint_names(checkpoint)
    if not (cfg.get('resume') or names is None or has_backbone(names)):
        print_log(
            f'{checkpoint} does not have the backbone of the model, which keeps its '
            'pretrained weights',
            logger='current',
        )
        return
    replaced = 'model.' if cfg.get('resume') else 'model.backbone.'
    for path, part, _ in pretrained_parts(cfg.model):
        if path.startswith(replaced):
            part['init_cfg'] = None
    print_log(
        f'{checkpoint} replaces the pretrained weights of {replaced}', logger='current'
    )


def checkpoint_names(checkpoint: str) -> Collection[str] | None:
    """Names of the weights in a checkpoint that a run is to load.

    Returns:
        The names; None if the file is not there, which :func:`check_data` reports, or in
        a storage that only MMEngine can read.

    Raises:
        ConnectionError: If a download fails.
        ValueError: If the file cannot be read or contains no weights.
    """
    checkpoint = check_location('checkpoint', checkpoint)
    path = Path(checkpoint).expanduser()
    if checkpoint.startswith(('http://', 'https://')):
        return load_weights(checkpoint).keys()
    return read_weights(path).keys() if path.is_file() else None


def fetch_pretrained(cfg: Config) -> None:
    """Download the pretrained weights of the model before the run starts.

    Raises:
        ConnectionError: If a download fails.
        ValueError: If a download is damaged, or timm has no such weights.
    """
    for path in pretrained_paths(cfg.model):
        if '://' in path:
            load_weights(path)
