"""mmpretrain's data preprocessor with a check of the labels."""

from __future__ import annotations

from mmengine.registry import MODELS
from mmpretrain.models.utils import ClsDataPreprocessor

from .labels import check_labels


@MODELS.register_module()
class PIIPClsDataPreprocessor(ClsDataPreprocessor):
    """:class:`ClsDataPreprocessor` that names a label out of range.

    Mixup and CutMix make scores of labels here, before the head sees them. On the way
    to the device the check costs no synchronisation. Arguments as of the base class.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Check the labels, then normalise, pad and augment the batch.

        Raises:
            ValueError: If a label is not below ``num_classes``.
        """
        if training and self.num_classes is not None:
            check_labels(data.get('data_samples') or (), self.num_classes)
        return super().forward(data, training)
