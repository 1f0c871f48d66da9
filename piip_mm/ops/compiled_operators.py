"""Importing this module fails unless mmcv's operators are compiled, so that no slower one
takes their place unnoticed. A config lists it in its ``custom_imports``."""

import mmcv._ext as extension

if not getattr(extension, 'IS_COMPILED', True):
    raise RuntimeError(
        "the config asks for mmcv's compiled operators (piip_mm.ops.compiled_operators), "
        'and this mmcv has none that can be loaded; install a compiled mmcv: '
        'https://mmcv.readthedocs.io/en/latest/get_started/installation.html, or remove '
        'the import'
    )
