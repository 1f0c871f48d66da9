"""The wheel: what is in it, and that it works without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from make_shapes import main as make_shapes

ROOT = Path(__file__).parents[1]


def run(*command, **kwargs):
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': ''},
        **kwargs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    # The build leaves folders behind.
    ignored = shutil.ignore_patterns('.*', 'build', 'data', 'tests', 'work_dirs')
    shutil.copytree(ROOT, folder / 'source', ignore=ignored)
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    run(*pip, '--wheel-dir', str(folder), str(folder / 'source'))
    (path,) = folder.glob('*.whl')
    return path


def test_contents(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith('METADATA'))
        described = archive.read(metadata).decode()
    outside = [
        path.relative_to(ROOT).as_posix()
        for pattern in ('configs/**/*', 'tools/**/*.py', 'model-index.yml')
        for path in ROOT.glob(pattern)
        if path.is_file() and path.suffix != '.pyc'
    ]
    assert {f'piip_mm/.mim/{name}' for name in outside} <= names
    assert 'piip_mm.pth' in names and not any('tests' in name for name in names)
    for extra in ('det', 'seg', 'cls', 'all'):
        needs = rf'^Requires-Dist: mmcv-lite<2\.2\.0,>=2\.1\.0; extra == "{extra}"$'
        assert re.search(needs, described, re.M)


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """An environment with the wheel and what it needs, but without the checkout."""
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', str(folder))
    paths = dict(base=str(folder), platbase=str(folder))
    site_packages = Path(sysconfig.get_path('purelib', vars=paths))
    # Python does not follow .pth files, and so not that of the checkout, from there.
    outer = Path(sysconfig.get_path('purelib'))
    lines = [str(outer)]
    # That of setuptools makes distutils, which Python 3.12 no longer has.
    shim = outer / 'distutils-precedence.pth'
    if shim.exists():
        lines.append(shim.read_text())
    (site_packages / 'needed.pth').write_text('\n'.join(lines))
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps']
    run(*pip, '--target', str(site_packages), str(wheel))
    return str(folder / 'bin/python')


def test_trains_from_another_folder(python, tmp_path):
    make_shapes(['--out', str(tmp_path / 'data/shapes'), '--train', '4', '--val', '2'])
    options = [
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.max_epochs=1',
        'val_cfg=None',
        'val_dataloader=None',
        'val_evaluator=None',
        'default_hooks.logger.interval=1',
        'train_dataloader.batch_size=2',
    ]
    command = [python, '-m', 'piip_mm', 'train', 'piip_tiny_maskrcnn_shapes']
    log = run(*command, '--cfg-options', *options, cwd=tmp_path)
    assert 'Epoch(train) [1][2/2]' in log
    assert (tmp_path / 'work_dirs/piip_tiny_maskrcnn_shapes/epoch_1.pth').is_file()


def test_configs_by_name(python, tmp_path):
    code = (
        'import piip_mm; from mmengine.hub import get_config;'
        'cfg = get_config("piip_mm::det/piip_sbl_maskrcnn_1x.py");'
        'print(len(cfg.model.backbone.branches), piip_mm.__file__)'
    )
    branches, place = run(python, '-c', code, cwd=tmp_path).split()[-2:]
    assert branches == '3' and Path(place).is_relative_to(Path(python).parents[1])
    config = tmp_path / 'own.py'
    config.write_text("_base_ = ['piip_mm::det/piip_sbl_maskrcnn_1x.py']\n")
    code = 'import piip_mm; from mmengine import Config; print(Config.fromfile("own.py"))'
    assert 'PIIP' in run(python, '-c', code, cwd=tmp_path)
