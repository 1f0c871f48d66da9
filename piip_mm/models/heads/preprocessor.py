"""mmpretrain's data preprocessor with a check of the labels."""

from __future__ import annotations

from mmengine.registry import MODELS
from mmpretrain.models.utils import ClsDataPreprocessor

from .labels import check_labels


@MODELS.register_module()
class PIIPClsDataPreprocessor(ClsDataPreprocessor):
    """:class:`ClsDataPreprocessor` that reports labels out of range.

    Mixup and CutMix turn labels into scores here, before the head sees them. Labels
    are checked before they move to the device, so this costs no synchronisation. The
    arguments are those of the base class.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Check the labels, then normalise, pad and augment the batch.

        Raises:
            ValueError: If a label is not below ``num_classes``.
        """
        if training and self.num_classes is not None:
            check_labels(data.get('data_samples') or (), self.num_classes)
        return super().forward(data, training)
