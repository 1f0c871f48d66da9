"""Classification heads for mmpretrain; needs mmpretrain.

They derive from mmpretrain's ``ClsHead`` and take loss, soft labels of Mixup and CutMix,
accuracy and prediction from it. Because importing that is slow and wants mmpretrain,
``import piip_mm`` leaves them out: a config asks for them with
``custom_imports = dict(imports=['piip_mm', 'piip_mm.models.heads'])``.
"""

from .merged import PIIPMergedHead
from .separate import PIIPSeparateHead

__all__ = ['PIIPMergedHead', 'PIIPSeparateHead']
