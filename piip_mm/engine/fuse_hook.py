"""Fuses a model between the loading of its checkpoint and its test."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from piip_mm.deploy import find_backbone, fuse

from .host_models import unwrapped


class FuseHook(Hook):
    """Fuses the model, which has its weights by then, see :func:`piip_mm.deploy.fuse`."""

    def before_test(self, runner: Any) -> None:
        # Before and after the test, EMAHook exchanges the weights of the model for those
        # of its own copy, parameter by parameter.
        copies = [
            hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)
        ]
        for model in (runner.model, *copies):
            fuse(unwrapped(model))


def fuse_before_test(runner: Runner) -> None:
    """Let a runner fuse its model before it is tested.

    Raises:
        ValueError: If the model cannot be fused.
    """
    find_backbone(unwrapped(runner.model))
    runner.register_hook(FuseHook())
