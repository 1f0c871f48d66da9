"""Draws predictions of segmentation and classification as mmdet does for detection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.visualization import Visualizer


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every test image with its prediction and its ground truth.

    mmpretrain's hook draws the input of the network with red and blue exchanged,
    overwrites images of equal names in different folders and stops at augmented tests;
    mmseg's writes below the run's log only. The arguments are those of mmdet's
    ``DetVisualizationHook``.

    Args:
        draw: Whether to draw at all.
        show: Open a window for every image.
        wait_time: Seconds that a window stays open.
        test_out_dir: Directory of the drawings; a relative one is made below
            ``work_dir/timestamp``. None: left to the visualizer's backends.
        backend_args: Where MMEngine reads the images from.
    """

    def __init__(
        self,
        draw: bool = False,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        self.draw = draw
        self.show_options = dict(show=show, wait_time=wait_time)
        self.test_out_dir = test_out_dir
        self.backend_args = backend_args

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draw the ``outputs`` of one batch, mmseg's or mmpretrain's data samples."""
        if not self.draw:
            return
        visualizer: Any = Visualizer.get_current_instance()
        is_classifier = hasattr(visualizer, 'visualize_cls')
        draw = visualizer.visualize_cls if is_classifier else visualizer.add_datasample
        for sample in outputs or ():
            path = Path(sample.img_path)
            # In folders of classes two images may have one name.
            name = f'{path.parent.name}_{path.name}' if is_classifier else path.name
            out_file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                out_file = str((folder / name).with_suffix('.png'))
            content = get(sample.img_path, self.backend_args)
            image = mmcv.imfrombytes(content, channel_order='rgb')
            options = dict(data_sample=sample, out_file=out_file, **self.show_options)
            draw(name=name, image=image, **options)
