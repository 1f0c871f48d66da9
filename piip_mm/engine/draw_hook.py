"""Draws predictions of segmentors and classifiers as mmdet does for detectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.visualization import Visualizer

from piip_mm.checks import check_bool, check_finite


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every test image with its prediction and its ground truth.

    mmpretrain's own hook draws the input of the network with red and blue exchanged,
    writes images of the same name in different folders to one file, and fails with
    test-time augmentation. mmseg's hook draws correctly, into ``vis_data/vis_image`` of
    the directory. This one serves both tasks, with the arguments and file names of
    mmdet's ``DetVisualizationHook``.

    Args:
        draw: Whether to draw at all.
        show: Open a window for every image.
        wait_time: Seconds that a window stays open.
        test_out_dir: Directory of the images; a relative one is created below
            ``work_dir/timestamp``. None leaves the images to the visualizer's backends.
    """

    def __init__(
        self,
        draw: bool = False,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: str | None = None,
    ) -> None:
        check_bool('draw', draw)
        check_bool('show', show)
        check_finite('wait_time', wait_time, minimum=0)
        self.draw = draw
        self.show_options = dict(show=show, wait_time=wait_time)
        self.test_out_dir = test_out_dir

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
            # In class folders two images may have the same name.
            name = f'{path.parent.name}_{path.name}' if is_classifier else path.name
            out_file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                out_file = str((folder / name).with_suffix('.png'))
            image = mmcv.imfrombytes(get(sample.img_path), channel_order='rgb')
            options = dict(data_sample=sample, out_file=out_file, **self.show_options)
            draw(name=name, image=image, **options)
