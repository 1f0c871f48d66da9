"""Classification heads for mmpretrain; requires mmpretrain.

They inherit loss, soft labels of Mixup and CutMix, accuracy and prediction from
mmpretrain's ``ClsHead``. Because mmpretrain is optional and slow to import,
``import piip_mm`` leaves them out: a config imports them with
``custom_imports = dict(imports=['piip_mm', 'piip_mm.models.heads'])``.
"""

from .merged import PIIPMergedHead
from .separate import PIIPSeparateHead

__all__ = ['PIIPMergedHead', 'PIIPSeparateHead']
