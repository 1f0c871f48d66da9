"""Lets MMEngine's runner load checkpoints of the published code."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import find_latest_checkpoint

from piip_mm.checks import check_bool, check_sequence
from piip_mm.published.checkpoints import convert_published, is_published
from piip_mm.weights.report import check_values, compare
from piip_mm.weights.source import errors_in
from piip_mm.weights.state_dict import unwrap_state_dict

from .class_check import classes_in_checkpoint, compare_classes
from .host_models import unwrapped

#: Prefixes of the parameters of our backbones in a checkpoint.
_BACKBONE = ('backbone.branches.', 'backbone.branch.')


def has_backbone(names: Collection[str]) -> bool:
    """Whether parameter names include those of a backbone of ours, or a published one."""
    return any(name.startswith(_BACKBONE) for name in names) or is_published(names)


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model or the run."""


@HOOKS.register_module()
class PublishedCheckpointHook(Hook):
    """Recognises and translates published checkpoints while they are loaded.

    Both plain files of mmdet 2 and DeepSpeed files are supported; names in checkpoints of
    this package are not changed. The log says what was dropped and what does not fit.

    Args:
        strict: Refuse any checkpoint that does not fit the model, or whose classes are
            not those of the test data, as ``tools/test.py`` does. Otherwise heads may
            differ, for example for fine-tuning on other classes, unless a run is resumed;
            the backbone has to fit unless the file has none of its parameters.
        ignore: Prefixes of parts that the model was built without on purpose.
    """

    # Before hooks that read the checkpoint, such as EMAHook.
    priority = 'VERY_HIGH'

    def __init__(self, strict: bool = False, ignore: Sequence[str] = ()) -> None:
        check_bool('strict', strict)
        # A string would be taken for its letters.
        check_sequence('ignore', ignore)
        self.strict = strict
        self.ignore = tuple(ignore)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Unwrap and translate in place.

        Raises:
            CheckpointError: If the checkpoint contains no weights, or values that are not
                finite numbers, or does not fit, see ``strict``; lists what is missing,
                left over or of another shape, or the classes that differ. Also if a run
                is to resume from a published checkpoint, or from one of other classes.
        """
        origin = getattr(runner, '_load_from', None)
        if origin is None and runner._resume:
            origin = find_latest_checkpoint(runner.work_dir)
        try:
            with errors_in(origin or 'checkpoint'):
                self._translate(runner, checkpoint)
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def _translate(self, runner: Any, checkpoint: dict) -> None:
        model = unwrapped(runner.model)
        state_dict = unwrap_state_dict(checkpoint)
        dropped = [name for name in state_dict if name.startswith(self.ignore)]
        for name in dropped:
            del state_dict[name]
        published = is_published(state_dict)
        if published:
            state_dict, unread = convert_published(state_dict, model)
            dropped += unread
        if published and runner._resume:
            raise ValueError(
                'a published checkpoint has no state to resume from; load its weights '
                'with --cfg-options load_from=FILE'
            )
        check_values(state_dict, model)
        if self.strict or runner._resume:
            _check_classes(runner, checkpoint)
        checkpoint['state_dict'] = state_dict
        report = compare(state_dict, model, dropped)
        refused = report.misfits
        if not self.strict:
            # Heads may differ; of a file with another backbone only heads are loaded.
            part = 'backbone.' if has_backbone(state_dict) else ()
            refused = [name for name in refused if name.startswith(part)]
        if refused or not report.loaded:
            raise ValueError(f'the checkpoint does not fit the model: {report}')
        level = logging.WARNING if report.misfits else logging.INFO
        if published or report.misfits:
            origin = ' of the published PIIP code' if published else ''
            runner.logger.log(level, f'Checkpoint{origin}: {report}')


def _check_classes(runner: Any, checkpoint: Mapping[str, Any]) -> None:
    """Compare the classes of a checkpoint with those of the data."""
    trained = classes_in_checkpoint(checkpoint)
    if trained is None:
        runner.logger.info(
            'The checkpoint does not name its classes; they are not compared with those '
            'of the data'
        )
        return
    name = 'train_dataloader' if runner._resume else 'test_dataloader'
    compare_classes(trained, getattr(runner, name).dataset, name)
