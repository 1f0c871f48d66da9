"""Parameter-Inverted Image Pyramid Networks for the OpenMMLab stack.

Importing the package registers everything in MMEngine's root registries, from where the
registries of mmdet, mmseg and mmpretrain find it. In a config:
``custom_imports = dict(imports=['piip_mm'])``.
"""

from .compat import apply_compat

__version__ = '0.1.0'

# Before anything imports timm or torchvision.
apply_compat()

from . import engine, models  # noqa: E402

__all__ = ['__version__', 'engine', 'models']
