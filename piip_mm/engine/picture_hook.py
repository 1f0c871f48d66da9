"""Pictures of predictions for segmentation and classification, as mmdet draws them."""

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
class PictureHook(Hook):
    """Draws every test image once, with its prediction and its ground truth.

    Has the options and the file names of mmdet's ``DetVisualizationHook`` (for
    classifiers the folder is part of the name). mmseg's own
    hook draws one image in fifty and names the files otherwise; mmpretrain's draws the
    network's input, with red and blue exchanged, and cannot draw augmented tests.

    Args:
        draw: Whether to draw at all.
        show: Open a window for every image.
        wait_time: Seconds that a window stays open.
        test_out_dir: Directory of the pictures; a relative one is made below
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
        self.show = show
        self.wait_time = wait_time
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
            # In an image folder two classes may have files of one name.
            name = f'{path.parent.name}_{path.name}' if is_classifier else path.name
            out_file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                folder.mkdir(parents=True, exist_ok=True)
                out_file = str((folder / name).with_suffix('.png'))
            image = mmcv.imfrombytes(
                get(sample.img_path, self.backend_args), channel_order='rgb'
            )
            draw(
                name=name,
                image=image,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                out_file=out_file,
            )
