"""Released checkpoints converted by the tool."""

import importlib.util
from pathlib import Path

import golden
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from piip_mm.published import migrate_config

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location(
    'published_to_mmengine', ROOT / 'tools/model_converters/published_to_mmengine.py'
)
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A config and a released checkpoint of its model, in DeepSpeed's container."""
    folder = tmp_path_factory.mktemp('released')
    case = golden.load('p1_three_branch_deit')
    cfg = Config.fromfile(ROOT / 'configs/det/piip_tiny_maskrcnn_shapes.py')
    cfg.model.backbone = migrate_config(case.kind, case.kwargs)
    cfg.model.neck.in_channels = [64] * 4
    cfg.model.rpn_head.anchor_generator.strides = [4, 8, 16, 32]
    cfg.dump(folder / 'config.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    heads = {n: v for n, v in model.state_dict().items() if 'backbone.' not in n}
    weights = {f'backbone.{name}': value for name, value in case.state_dict.items()}
    torch.save({'module': {**weights, **heads}}, folder / 'released.pth')
    return folder, case


def convert(folder, name, out):
    return tool.convert(str(folder / 'config.py'), str(folder / name), out)


def test_conversion(files):
    folder, case = files
    out = folder / 'new/converted.pth'
    assert 'tensors fit the model' in convert(folder, 'released.pth', out)
    assert not list(folder.glob('new/*.part'))
    saved = torch.load(out, weights_only=True)['state_dict']
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(folder / 'config.py').model).eval()
    model.load_state_dict(saved, strict=True)
    with torch.no_grad():
        outputs = model.backbone(case.image)
    for output, recorded in zip(outputs, case.outputs, strict=True):
        assert recorded.deviation(output) < golden.OUTPUT_TOLERANCE


def test_errors(files):
    folder, _ = files
    out = folder / 'never.pth'
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        convert(folder, 'gone.pth', out)
    content = torch.load(folder / 'released.pth', weights_only=True)
    del content['module']['backbone.w1']
    torch.save(content, folder / 'incomplete.pth')
    with pytest.raises(ValueError, match='1 missing:\n  backbone.merges.0.scales.2'):
        convert(folder, 'incomplete.pth', out)
    torch.save({'state_dict': {'backbone.x': torch.ones(1)}}, folder / 'own.pth')
    with pytest.raises(ValueError, match='none of the names of the published PIIP code'):
        convert(folder, 'own.pth', out)
    assert not out.exists()
