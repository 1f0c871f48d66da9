"""What takes the place of mmcv's compiled operators, against recordings of these."""

import importlib.util
import re
import sys
from pathlib import Path

import mmcv._ext
import pytest
import torch
from mmcv.ops import RoIAlign
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from piip_mm.ops import mmcv_ext
from piip_mm.ops.mmcv_ext import roi_align, suppression

sys.path.insert(0, str(Path(__file__).parent / 'data'))
import mmcv_operators

GEOMETRY = dict(
    aligned_height=7,
    aligned_width=7,
    spatial_scale=1.0,
    sampling_ratio=0,
    pool_mode=1,
    aligned=True,
)
MAXIMUM = dict(pool_mode=0)
RECORDED = torch.load(mmcv_operators.FILE, weights_only=True)
COMPILED = pytest.mark.skipif(
    not getattr(mmcv._ext, 'IS_COMPILED', True),
    reason='needs a compiled mmcv (make test-compiled)',
)


def cases(name):
    return [
        pytest.param(*RECORDED[key], id=str(key[1])) for key in RECORDED if key[0] == name
    ]


@pytest.fixture(params=['plain', 'chunks'])
def memory(request, monkeypatch):
    """Regions all at once, or a few at a time."""
    if request.param == 'chunks':
        monkeypatch.setattr(roi_align, '_MAX_WEIGHTS', 1000)
        monkeypatch.setattr(suppression, '_BLOCK', 16)


@pytest.mark.parametrize('inputs, expected', cases('roi_align'))
def test_roi_align(inputs, expected, memory):
    outputs = mmcv_operators.roi_align(mmcv_ext, *inputs)
    for ours, theirs in zip(outputs, expected, strict=True):
        limit = 1e-5 * max(theirs.abs().max().item(), 1) if theirs.numel() else 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)


@pytest.mark.parametrize('inputs, expected', cases('nms'))
def test_nms(inputs, expected, memory):
    boxes, scores, threshold, offset = inputs
    kept = mmcv_ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)


@COMPILED
@pytest.mark.parametrize('seed', range(100, 200))
def test_compiled(seed):
    """Further inputs, against the compiled operators themselves."""
    inputs = mmcv_operators.roi_align_inputs(seed)
    expected = mmcv_operators.roi_align(mmcv._ext, *inputs)
    test_roi_align(inputs, expected, None)
    boxes, scores, threshold, offset = inputs = mmcv_operators.nms_inputs(seed)
    kept = mmcv._ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    test_nms(inputs, kept, None)


def test_regions_of_negative_size_are_zero():
    """As on GPUs; mmcv's operator on the CPU stops the program."""
    maps, rois = torch.randn(1, 2, 8, 8), torch.tensor([[0, 6.0, 6, 2, 3]])
    grads = torch.randn(1, 2, 3, 3)
    outputs = mmcv_operators.roi_align(mmcv_ext, maps, rois, grads, (3, 3), 1.0, 0, True)
    assert not any(x.any() for x in outputs)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_types_of_maps(dtype):
    inputs, expected = RECORDED['roi_align', 3]
    maps, rois, grads, *options = inputs
    outputs = mmcv_operators.roi_align(
        mmcv_ext, maps.to(dtype), rois, grads.to(dtype), *options
    )
    tolerance = max(torch.finfo(dtype).eps * 8, 1e-5)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.dtype == dtype
        limit = tolerance * theirs.abs().max().item()
        torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=limit)


def test_large_regions_take_bounded_memory(monkeypatch):
    """Regions of 400 x 400 cells: each of 49 bins averages 58 x 58 samples."""
    monkeypatch.setattr(roi_align, '_MAX_WEIGHTS', 400_000)
    rois = torch.tensor([[0, 0.0, 0, 400, 400]]).repeat(40, 1)
    bins = roi_align._Bins(rois, torch.Size([1, 1, 512, 512]), **GEOMETRY)
    counted = [weight.numel() for _, _, weight in bins.samples()]
    assert sum(counted) > 5_000_000 and max(counted) <= 400_000


def test_focal_loss():
    torch.manual_seed(0)
    scores = (torch.randn(50, 4) * 5).requires_grad_()
    target = torch.randint(5, (50,))  # 4 is the background
    expected = py_sigmoid_focal_loss(
        scores,
        torch.nn.functional.one_hot(target, 5)[:, :4].float(),
        gamma=1.5,
        alpha=0.3,
        reduction='none',
    )
    (expected_grad,) = torch.autograd.grad(expected.sum(), scores)
    none = scores.new_zeros(0)
    out, grad = torch.empty_like(scores), torch.empty_like(scores)
    with torch.no_grad():
        mmcv_ext.sigmoid_focal_loss_forward(scores, target, none, out, 1.5, 0.3)
        mmcv_ext.sigmoid_focal_loss_backward(scores, target, none, grad, 1.5, 0.3)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-6)


def test_deformable_attention():
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 6], [2, 3]])
    start = torch.tensor([0, 24])
    value = torch.randn(2, 30, 3, 5, requires_grad=True)
    points = (torch.rand(2, 7, 3, 2, 4, 2) * 1.4 - 0.2).requires_grad_()
    weights = torch.rand(2, 7, 3, 2, 4, requires_grad=True)
    inputs = (value, points, weights)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, points, weights)
    upstream = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, upstream)
    grads = [torch.empty_like(x) for x in inputs]
    with torch.no_grad():
        out = mmcv_ext.ms_deform_attn_forward(value, shapes, start, points, weights, 64)
        mmcv_ext.ms_deform_attn_backward(
            value, shapes, start, points, weights, upstream, *grads, 64
        )
    torch.testing.assert_close(out, expected.detach())
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_other_operators_say_how_to_get_them():
    # mmcv looks up every operator when it is imported.
    assert callable(mmcv_ext.deform_conv_forward)
    message = (
        "'deform_conv_forward' exists only in its compiled form, and this mmcv has none; "
        'install a compiled mmcv: https://'
    )
    with pytest.raises(NotImplementedError, match=message):
        mmcv_ext.deform_conv_forward(1, 2, stride=3)
    maps, rois = torch.zeros(1, 1, 8, 8), torch.zeros(1, 5)
    with pytest.raises(NotImplementedError, match="'max' exists only"):
        mmcv_ext.roi_align_forward(maps, rois, maps, maps, maps, **GEOMETRY | MAXIMUM)
    assert not hasattr(mmcv_ext, '__signature__')


def test_the_list_of_operators_is_complete():
    files = Path(mmcv_ext.__file__).parent.glob('*.py')
    source = ''.join(path.read_text() for path in files)
    defined = set(re.findall(r'^def ([a-z]\w+)', source, re.M))
    assert defined - {'torchvision_runs'} == set(mmcv_ext.__all__)
    folder = Path(importlib.util.find_spec('mmcv.ops').origin).parent
    looked_up = ''.join(path.read_text() for path in folder.glob('*.py'))
    assert all(f"'{name}'" in looked_up for name in mmcv_ext.__all__)


def test_maps_in_channels_last_order():
    """The order in which the levels of a pyramid are in memory."""
    torch.manual_seed(0)
    maps, rois = torch.randn(2, 8, 20, 30), torch.tensor([[1.0, 3, 2, 25, 17]])
    layer = RoIAlign(7)
    channels_last = maps.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(channels_last, rois), layer(maps, rois))
