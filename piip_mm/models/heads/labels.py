"""Checks of the labels that come with the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample


def check_labels(data_samples: Sequence[DataSample], num_classes: int) -> None:
    """Raise ``ValueError`` unless labels are in range and scores cover all classes.

    PyTorch's own error names neither the label nor the number of classes; on a GPU it
    aborts the process.

    Args:
        data_samples: Samples with ``gt_label``, ``gt_score`` (which takes precedence) or
            neither.
        num_classes: Number of classes.
    """
    fix = 'set num_classes to the number of classes of the data set'
    scores = [sample.gt_score for sample in data_samples if 'gt_score' in sample]
    for score in scores:
        if len(score) != num_classes:
            raise ValueError(
                f'scores of {len(score)} classes (gt_score) do not fit '
                f'num_classes={num_classes}; {fix}, in the data preprocessor and in the '
                'head'
            )
    labels = [sample.gt_label for sample in data_samples if 'gt_label' in sample]
    if scores or not labels:
        return
    low, high = (int(limit) for limit in torch.aminmax(torch.cat(labels)))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f'label {low if low < 0 else high} is out of range for '
            f'num_classes={num_classes}: expected 0 to {num_classes - 1}; {fix}'
        )
