"""What makes torchvision and mmcv importable, whatever is imported first."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import piip_mm

PACKAGE = Path(piip_mm.__file__).parent
PTH = Path(sysconfig.get_path('purelib')) / 'piip_mm.pth'


def run(code, cwd=None, check=True):
    """Run code in a new Python that has not imported this package."""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout, done.stderr


FILE = str(PACKAGE / 'startup.py')
# As piip_mm.pth does it.
STARTUP = f'exec(open({FILE!r}).read(), dict(__name__="startup", __file__={FILE!r}));'


@pytest.mark.skipif(
    not PTH.exists(), reason='pip install -e installs no piip_mm.pth (make env does)'
)
@pytest.mark.parametrize(
    'first',
    [
        'import timm, torchvision.models',
        'from mmdet.apis import init_detector',
        'from mmseg.apis import init_model',
        'from mmpretrain import ImageClassificationInferencer',
    ],
)
def test_any_order(first):
    code = f'{first}; import sys; assert "piip_mm" not in sys.modules; import piip_mm'
    run(f'{code}; from mmcv.ops import nms; import mmdet.models')


def test_python_starts_without_importing_anything():
    code = (
        'print(sum(type(x).__name__ == "StartupFinder" for x in sys.meta_path),'
        ' {"torch", "mmcv", "typing"} & (set(sys.modules) - before))'
    )
    before = 'import sys; before = set(sys.modules);'
    assert run(f'{before} {STARTUP} {STARTUP} {code}')[0] == '1 set()\n'


def test_the_pth_file_finds_the_package(tmp_path):
    line = (PACKAGE / 'piip_mm.pth').read_text()
    forget = 'sys.meta_path[:] = [x for x in sys.meta_path if type(x).__name__ != name];'
    check = 'print([type(x).__name__ for x in sys.meta_path].count(name))'
    code = f'import sys; name = "StartupFinder"; {forget}{line.strip()}; {check}'
    assert run(code)[0] == '1\n'
    # Nothing happens once the package is gone.
    code = f'import sys; name = "StartupFinder"; {forget} sys.path.clear(); '
    code += 'sys.meta_path[:] = sys.meta_path[:3]; ' + line.strip() + '; ' + check
    assert run(code)[0] == '0\n'


@pytest.fixture
def mmcv_folder(tmp_path):
    """A folder with a package mmcv that has no operators."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    return tmp_path


def test_operators_that_are_missing(mmcv_folder):
    code = f'{STARTUP} import mmcv._ext as x; print(x.__spec__.origin, x.nms)'
    out, err = run(code, mmcv_folder)
    assert 'ops/mmcv_ext/__init__.py <function nms' in out
    assert 'cannot be loaded' not in err


def test_operators_of_another_pytorch(mmcv_folder):
    suffix = sysconfig.get_config_var('EXT_SUFFIX')
    (mmcv_folder / f'mmcv/_ext{suffix}').write_bytes(b'no library')
    code = f'{STARTUP} import mmcv._ext as x; print(x.nms)'
    out, err = run(code, mmcv_folder)
    assert out.startswith('<function nms')
    assert "UserWarning: mmcv's compiled operators cannot be loaded (" in err
    assert 'compiled for another PyTorch' in err


def test_operators_that_are_there(mmcv_folder):
    (mmcv_folder / 'mmcv/_ext.py').write_text("nms = 'compiled'")
    code = f'{STARTUP} import mmcv._ext as x; print(x.nms, x.__spec__.origin)'
    out, _ = run(code, mmcv_folder)
    assert out == f'compiled {mmcv_folder / "mmcv/_ext.py"}\n'


@pytest.mark.parametrize('choice', ['torch_operators', 'compiled_operators'])
def test_a_config_can_choose(choice):
    code = (
        'import piip_mm, mmcv._ext as x, mmcv.ops as ops;'
        'missing = not getattr(x, "IS_COMPILED", True);'
        f'import piip_mm.ops.{choice};'
        'print(missing, type(x.nms).__name__, ops.get_compiling_cuda_version())'
    )
    out, err = run(code, check=False)
    if 'RuntimeError' in err:
        assert choice == 'compiled_operators'
        assert "the config asks for mmcv's compiled operators" in err
    elif choice == 'torch_operators':
        assert out.split()[1:] == ['function', 'not', 'available']
    else:
        assert out.split()[0] == 'False'
