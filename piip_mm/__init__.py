"""Parameter-Inverted Image Pyramid Networks for the OpenMMLab stack.

Importing the package registers everything in MMEngine's root registries, from where the
registries of mmdet, mmseg and mmpretrain find it. In a config:
``custom_imports = dict(imports=['piip_mm'])``.
"""

# Before anything imports timm, torchvision or mmcv.
from . import startup  # isort: skip
from . import engine, models
from .compat import (
    allow_mmengine_checkpoints,
    quiet_warnings,
    refuse_code_in_checkpoints,
    register_configs,
)

__version__ = '0.1.0'

allow_mmengine_checkpoints()
refuse_code_in_checkpoints()
register_configs()
quiet_warnings()

__all__ = ['__version__', 'engine', 'models', 'startup']
