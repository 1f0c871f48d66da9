"""Deformable attention by deformops equals the PyTorch backend, on the CPU: by its plain
PyTorch, and by its Triton kernels in Triton's interpreter. Its tests on CUDA are those of
``test_deform_attn.py``."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch
from test_deform_attn import inputs

from piip_mm.ops import deformable_attention
from piip_mm.ops.deform_attn import with_deformops

pytestmark = pytest.mark.skipif(
    find_spec('deformops') is None or find_spec('triton') is None,
    reason='needs deformops and triton',
)

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


@pytest.fixture
def kernels_on_the_cpu(monkeypatch):
    """deformops runs its Triton kernels on CPU tensors."""
    from deformops.backends.triton.msda import msda_triton
    from deformops.registry import Backend, msda

    msda.available()  # reads the table of backends, to which the next line adds
    msda.register(Backend.TRITON, msda_triton)
    monkeypatch.setattr(msda, '_select', lambda context: Backend.TRITON)
    monkeypatch.setattr(torch.cuda, 'device', lambda device: nullcontext())


def compare(dtype, dims, tolerance):
    """Outputs and gradients, of values and weights of a type and float32 locations."""
    results = []
    for sample in (with_deformops.sample, deformable_attention):
        value, locations, weights = inputs(1, dims=dims, dtype=torch.float32)
        rounded = weights.to(dtype)
        out = sample(value.to(dtype), (4, 6), locations, rounded).to(dtype)
        out.float().square().sum().backward()
        results.append([out, value.grad, locations.grad, weights.grad])
    for ours, twin in zip(*results, strict=True):
        assert (ours - twin).abs().max() <= tolerance * twin.abs().max()


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize('dims', [6, 32])
def test_its_pytorch_equals_ours(dtype, tolerance, dims):
    compare(dtype, dims, tolerance)


def test_a_location_that_is_no_number_shows_in_the_result():
    value, locations, weights = inputs(1)
    with torch.no_grad():
        locations[0, 1, 0, 0] = torch.nan
        missing = with_deformops.sample(value, (4, 6), locations, weights).isnan()
    assert missing[0, 1].any() and not missing[0, [0, 2, 3, 4]].any()


def test_it_is_one_graph():
    value, locations, weights = inputs(dtype=torch.float32)
    with_deformops.what_is_missing()
    compiled = torch.compile(with_deformops.sample, fullgraph=True, backend='aot_eager')
    compiled(value, (4, 6), locations, weights).sum().backward()


# The interpreter cannot multiply in bfloat16.
@pytest.mark.skipif(not INTERPRETED, reason='run by the next test')
@pytest.mark.parametrize(
    'dtype, dims, tolerance',
    [(torch.float32, 6, 1e-5), (torch.float32, 40, 1e-5), (torch.float16, 24, 5e-3)],
)
def test_kernels_equal_ours(kernels_on_the_cpu, dtype, dims, tolerance):
    compare(dtype, dims, tolerance)


@pytest.mark.skipif(INTERPRETED, reason='it would call itself')
def test_kernels_in_the_interpreter():
    """In another process, because the decorators of the kernels read the variable."""
    options = ['-q', '-p', 'no:cacheprovider', '-k', 'test_kernels_equal_ours', __file__]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', *options],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert '3 passed' in done.stdout
