"""Loads checkpoints of the published code where MMEngine loads its own."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from piip_mm.weights.checkpoint import (
    compare,
    convert_published,
    is_published,
    unwrap_state_dict,
)


@HOOKS.register_module()
class PublishedCheckpointHook(Hook):
    """Recognises and translates published checkpoints while they are loaded.

    Plain files of mmdet 2 and DeepSpeed files are both known; other checkpoints are left
    as they are. What was dropped, and what does not fit, is logged.

    Args:
        strict: Stop on any checkpoint that does not fit the model, published or not:
            ``tools/test.py`` does. Otherwise a misfit of a published file is a warning,
            as when a model is fine-tuned on other classes.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Translate in place.

        Raises:
            ValueError: If ``strict`` and the checkpoint does not fit: lists what is
                missing, left over or of another shape.
        """
        model = runner.model
        # Distributed wrappers, and mmdet's one for test-time augmentation.
        while not hasattr(model, 'backbone') and hasattr(model, 'module'):
            model = model.module
        state_dict = unwrap_state_dict(checkpoint)
        published = is_published(state_dict)
        dropped: list[str] = []
        if published:
            state_dict, dropped = convert_published(state_dict, model)
            checkpoint['state_dict'] = state_dict
        if not (published or self.strict):
            return
        names = {name.removeprefix('module.'): t for name, t in state_dict.items()}
        fit = compare(names, model)
        fit.dropped = dropped
        if self.strict and not fit.is_complete:
            raise ValueError(f'the checkpoint does not fit the model: {fit}')
        if published:
            runner.logger.info(f'Checkpoint of the published PIIP code: {fit}')
