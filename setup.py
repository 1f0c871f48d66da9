"""Packaging of piip_mm."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def version() -> str:
    """The version in ``piip_mm/__init__.py``, read without importing it."""
    text = (ROOT / 'piip_mm/__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


class BuildWithConfigs(build_py):
    """Adds what is outside the package: configs, tools and index of models, where
    OpenMMLab's packages have them, and ``piip_mm.pth``, which Python reads when it
    starts (see ``piip_mm/startup.py``)."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib, 'piip_mm/.mim')
        for name in ('configs', 'tools'):
            ignored = shutil.ignore_patterns('__pycache__', '*.sh')
            shutil.copytree(ROOT / name, mim / name, ignore=ignored, dirs_exist_ok=True)
        shutil.copy(ROOT / 'model-index.yml', mim)
        shutil.copy(ROOT / 'piip_mm/piip_mm.pth', self.build_lib)


# The OpenMMLab packages are extras, because their maintained fork has other distribution
# names for the same modules. mmcv-lite is mmcv without compiled operators.
MMENGINE = ['mmengine>=0.10.7,<1.0', 'mmcv-lite>=2.1.0,<2.2.0', 'setuptools<81']
DET = [*MMENGINE, 'mmdet>=3.3.0,<4.0']
SEG = [*MMENGINE, 'mmsegmentation>=1.2.2,<2.0', 'ftfy', 'regex']
CLS = [*MMENGINE, 'mmpretrain>=1.2.0,<2.0']
# deformable attention on GPUs without mmcv's compiled operators
FAST = ["deformops>=3.0.1,<4; python_version >= '3.12' and python_version < '3.14'"]
DEV = (ROOT / 'requirements/dev.txt').read_text().split()

setup(
    name='piip_mm',
    version=version(),
    description='Parameter-Inverted Image Pyramid Networks for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['piip_mm', 'piip_mm.*']),
    cmdclass={'build_py': BuildWithConfigs},
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',  # the first to load files with weights_only=True by default
        'timm>=1.0',
        'filelock',
        'numpy',
        'safetensors',
        'scipy',
    ],
    extras_require={
        'det': DET,
        'seg': SEG,
        'cls': CLS,
        'all': sorted({*DET, *SEG, *CLS}),
        'fast': FAST,
        'dev': DEV,
    },
)
