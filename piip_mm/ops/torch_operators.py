"""Importing this module makes mmcv's operators those of :mod:`piip_mm.ops.mmcv_ext`, even
where mmcv is compiled. A config lists it in its ``custom_imports``."""

import mmcv._ext as extension

from . import mmcv_ext

for _name in mmcv_ext.__all__:
    setattr(extension, _name, getattr(mmcv_ext, _name))
