"""Detectors under autocast in bfloat16."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gradients import check_gradients, enliven
from mmdet.models.roi_heads.roi_extractors import GenericRoIExtractor, SingleRoIExtractor
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from piip_mm.models.detection import Float32RoIExtractor, accept_bfloat16

CONFIGS = Path(__file__).parents[1] / 'configs/det'


OPTIONS = dict(
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
    out_channels=8,
    featmap_strides=[4, 8],
)


def extractors():
    return Float32RoIExtractor(**OPTIONS), SingleRoIExtractor(**OPTIONS)


def regions():
    torch.manual_seed(0)
    maps = [torch.randn(1, 8, 300, 300), torch.randn(1, 8, 150, 150)]
    rois = torch.tensor(
        [[0, 1001.0, 1003.0, 1031.0, 1045.0], [0, 3.0, 5.0, 333.0, 441.0]]
    )
    return maps, rois


@pytest.mark.parametrize('autocast', [True, False])
def test_regions_keep_their_corners(autocast):
    maps, rois = regions()
    expected = extractors()[1](maps, rois)
    rounded = [x.bfloat16().requires_grad_() for x in maps]
    # mmdet's class would round the corners of the regions to bfloat16.
    displaced = extractors()[1](maps, rois.bfloat16().float())
    assert (displaced - expected).abs().max() > 0.5
    # In a 16-bit model the head has that type.
    dtypes = torch.float32 if autocast else torch.bfloat16, torch.bfloat16
    for extractor, dtype in zip(extractors(), dtypes, strict=True):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            output = extractor(rounded, rois)
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)
        output.sum().backward()
    assert all(x.grad.dtype == torch.bfloat16 for x in rounded)


class PlainRoIExtractor(SingleRoIExtractor):
    """A user's, which shares no code with mmdet's: all regions from the first map."""

    def forward(self, feats, rois, roi_scale_factor=None):
        size = self.roi_layers[0].output_size
        regions = feats[0].new_zeros(len(rois), self.out_channels, *size)
        regions[torch.arange(len(rois))] = self.roi_layers[0](feats[0], rois)
        return regions


def test_an_extractor_of_a_user():
    maps, rois = regions()
    extractor = PlainRoIExtractor(**OPTIONS)
    for autocast in (True, False):
        rounded = maps[0].bfloat16().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            output = extractor([rounded], rois)
        assert output.dtype == torch.bfloat16
        expected = extractor(maps, rois)
        torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)
        output.sum().backward()
        assert rounded.grad.dtype == torch.bfloat16


def test_regions_of_all_levels():
    """mmdet's other extractor does not round the corners, but only calls the operator."""
    maps, rois = regions()
    extractor = GenericRoIExtractor(**OPTIONS)
    output = extractor([x.bfloat16() for x in maps], rois)
    torch.testing.assert_close(
        output.float(), extractor(maps, rois), atol=0.03, rtol=0.03
    )


@pytest.mark.parametrize(
    'config', ['piip_tiny_maskrcnn_shapes', 'piip_tiny_cascade_shapes']
)
def test_a_detector_whose_weights_are_bfloat16(config):
    cfg = Config.fromfile(CONFIGS / f'{config}.py').model
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg).bfloat16()
        inputs = demo_mm_inputs(1, [[3, 128, 128]], num_classes=3, with_mask=True)
        data = model.data_preprocessor(inputs, training=True)
        data['inputs'] = data['inputs'].bfloat16()
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        model.eval()(**data, mode='predict')
    assert loss.isfinite()
    assert {x.grad.dtype for x in model.roi_head.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize('precision', ['autocast', 'model'])
def test_a_detector_that_imports_only_the_package(precision):
    """With mmdet's own extractor, as in a config that names no class of this package but
    the backbone."""
    code = f"""
import sys, torch, piip_mm
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
cfg = Config.fromfile(
    {str(CONFIGS / 'piip_tiny_maskrcnn_shapes.py')!r}, import_custom_modules=False
).model
for part in ('bbox', 'mask'):
    cfg.roi_head[part + '_roi_extractor'].type = 'SingleRoIExtractor'
init_default_scope('mmdet')
assert 'piip_mm.models.detection' not in sys.modules
model = MODELS.build(cfg)
inputs = demo_mm_inputs(1, [[3, 128, 128]], num_classes=3, with_mask=True)
data = model.data_preprocessor(inputs, training=True)
if {precision == 'model'}:
    model.bfloat16()
    data['inputs'] = data['inputs'].bfloat16()
with torch.autocast('cpu', torch.bfloat16, enabled={precision == 'autocast'}):
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    model.eval()(**data, mode='predict')
assert loss.isfinite()
"""
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize(
    'config',
    ['piip_tiny_maskrcnn_shapes', 'piip_tiny_cascade_shapes', 'piip_tiny_dino_shapes'],
)
def test_losses(config):
    cfg = Config.fromfile(CONFIGS / f'{config}.py').model
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
        model.init_weights()
        enliven(model)
        inputs = demo_mm_inputs(
            2, [[3, 128, 128]] * 2, num_classes=3, with_mask=True, num_items=[2, 3]
        )
        data = model.data_preprocessor(inputs, training=True)
        with torch.autocast('cpu', torch.bfloat16):
            losses, _ = model.parse_losses(model(**data, mode='loss'))
        losses.backward()
    assert torch.isfinite(losses)
    check_gradients(model)


def test_boxes_of_dino_are_float32():
    cfg = Config.fromfile(CONFIGS / 'piip_tiny_dino_shapes.py').model
    assert cfg.bbox_head.type == 'Float32DINOHead'
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MODELS.build(cfg).bbox_head
    layers = len(head.reg_branches) - 1
    hidden = torch.randn(layers, 1, 5, head.embed_dims)
    references = [torch.rand(1, 5, 4) for _ in range(layers + 1)]
    expected = head(hidden.bfloat16().float(), references)[1]
    with torch.autocast('cpu', torch.bfloat16):
        boxes = head(hidden.bfloat16(), references)[1]
    assert boxes.dtype == torch.float32
    torch.testing.assert_close(boxes, expected)


def test_an_operator_without_bfloat16():
    class Scale(torch.autograd.Function):
        """Does not support bfloat16, like mmcv's operators."""

        @staticmethod
        def forward(ctx, x, factor, shape):
            assert x.dtype == factor.dtype != torch.bfloat16
            assert shape.dtype == torch.int64
            ctx.save_for_backward(factor)
            return x * factor

        @staticmethod
        def backward(ctx, grad):
            (factor,) = ctx.saved_tensors
            assert grad.dtype == factor.dtype
            return grad * factor, None, None

    accept_bfloat16(Scale)
    x = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    factor, shape = torch.full((3,), 2.0), torch.tensor([3])
    output = Scale.apply(x, factor, shape)
    assert output.dtype == torch.float32
    output.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and x.grad.tolist() == [2, 2, 2]
    half = Scale.apply(x.detach().half(), factor.half(), shape)
    assert half.dtype == torch.float16
