"""Packaging of piip_mm."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """The version in ``piip_mm/__init__.py``, read without importing it."""
    text = (ROOT / 'piip_mm/__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


# The OpenMMLab packages are extras: the maintained fork has other distribution names for
# the same modules, and mmcv has to be compiled for the PyTorch that is installed.
MMENGINE = ['mmengine>=0.10.7,<1.0', 'mmcv>=2.1.0,<2.2.0', 'setuptools<81']
DET = [*MMENGINE, 'mmdet>=3.3.0,<4.0']
SEG = [*MMENGINE, 'mmsegmentation>=1.2.2,<2.0', 'ftfy', 'regex']
CLS = [*MMENGINE, 'mmpretrain>=1.2.0,<2.0']
DEV = (ROOT / 'requirements/dev.txt').read_text().split()

setup(
    name='piip_mm',
    version=version(),
    description='Parameter-Inverted Image Pyramid Networks for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['piip_mm', 'piip_mm.*']),
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
        'dev': DEV,
    },
)
