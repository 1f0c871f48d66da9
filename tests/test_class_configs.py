"""A config of classes (`read_base`, no default scope) in everything that the tools do."""

from pathlib import Path

import pytest
import torch
from mmdet.models import DetTTAModel, MaskRCNN
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import MODELS
from test_tools import draw, load, make_data, run, switch

from piip_mm.analysis import build_on_meta
from piip_mm.config_types import default_scope
from piip_mm.engine import find_missing, launch
from piip_mm.engine.options import accept_published_checkpoints, skip_pretrained
from piip_mm.engine.tta import enable_tta
from piip_mm.models import PIIP

DETECTOR = Path(__file__).parent / 'class_configs/detector.py'


def deit_file(path):
    """A DeiT with patches of another size, which only the branch can resize."""
    cfg = dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2), img_size=64)
    own = MODELS.build(dict(cfg, type='PIIPViT', pretrain_img_size=64)).state_dict()
    tensors = {n.replace('embed.', 'embed.proj.'): x for n, x in own.items()}
    tensors = {n: x for n, x in tensors.items() if '.ls' not in n}
    tensors['patch_embed.proj.weight'] = torch.randn(32, 3, 14, 14)
    torch.save({'model': tensors}, path)
    return tensors


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A directory with four images and a model trained on them for one epoch."""
    cwd = tmp_path_factory.mktemp('classes')
    make_data(cwd / 'shapes', 'coco', 4, 2)
    deit_file(cwd / 'deit.pth')
    result = run('train.py', DETECTOR, '--work-dir', 'work', cwd=cwd)
    assert result.returncode == 0, result.stderr
    (cwd / 'output').write_text(result.stdout + result.stderr)
    return cwd


def test_training_starts_from_the_pretrained_weights(trained):
    output = (trained / 'output').read_text()
    assert 'deit.pth: 27 tensors loaded, resized: 1 (patch_embed.weight' in output
    assert 'coco/segm_mAP:' in output


def test_layers_have_their_rates(trained):
    (table,) = (trained / 'output').read_text().split('Learning rate by layer:')[1:]
    rows = [line.split() for line in table.splitlines()[2:9]]
    # Layers of norms and biases, without AdamW's decay, and of matrices.
    assert [row[0] for row in rows] == ['0', '0', '1', '1', '2', '2', '3']
    assert [row[3] for row in rows] == [
        '0.0',
        '0.01',
        '0.0',
        '0.01',
        '0.0',
        '0.01',
        '0.0',
    ]
    assert [row[2] for row in rows[::2]] == ['0.000125', '0.00025', '0.0005', '0.001']


@pytest.mark.parametrize('config', [DETECTOR, 'work/detector.py'])
def test_testing_with_flips_pictures_and_predictions(trained, config):
    """With the config itself, and as the run has saved it, with names of classes."""
    outputs = ('--out', 'out.pkl', '--show-dir', str(trained / 'pictures'))
    options = ('--tta', '--work-dir', 'tested', *outputs)
    result = run('test.py', config, 'work/epoch_1.pth', *options, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert 'coco/bbox_mAP:' in result.stdout + result.stderr
    assert (trained / 'out.pkl').exists()
    assert len(list((trained / 'pictures').iterdir())) == 2
    saved = Config.fromfile(trained / 'tested/detector.py')
    assert saved.model.type == 'DetTTAModel'
    assert saved.model.module.backbone.type == 'piip_mm.models.PIIP'


def test_flops(trained):
    tool = 'analysis_tools/get_flops.py'
    texts = [run(tool, path, cwd=trained) for path in (DETECTOR, 'work/detector.py')]
    tables = [result.stdout.split('\n', 1)[1] for result in texts]
    assert 'bbox_head' in tables[0] and tables[0] == tables[1]


@pytest.fixture(params=['classes', 'names'])
def cfg(request, tmp_path, monkeypatch):
    """The config as written, and as saved by a run."""
    monkeypatch.chdir(tmp_path)
    cfg = launch.read_config(str(DETECTOR), {})
    if request.param == 'names':
        cfg.dump('saved.py')
        cfg = launch.read_config('saved.py', {})
        assert cfg.model.type == 'mmdet.models.MaskRCNN'
    else:
        assert cfg.model.type is MaskRCNN
    return cfg


def test_the_scope_is_that_of_the_model(cfg):
    assert cfg.default_scope == 'mmdet'
    assert default_scope(Config(dict(model=dict(type='mmdet.MaskRCNN')))) == 'mmdet'
    assert default_scope(Config(dict(model=dict(type=PIIP)))) == 'mmengine'
    assert default_scope(Config(dict())) == 'mmengine'
    with_scope = dict(default_scope='mmseg', model=dict(type=MaskRCNN))
    assert default_scope(Config(with_scope)) == 'mmseg'


def test_missing_files_and_a_checkpoint_instead_of_them(cfg, tmp_path):
    missing = find_missing(cfg, 'train')
    assert missing['deit.pth'] == 'pretrained weights (init_cfg of the model)'
    assert len(missing) == 5
    path = str(tmp_path / 'own.pth')
    torch.save({'state_dict': {'backbone.branches.0.pos_embed': torch.ones(1)}}, path)
    cfg.load_from = path
    skip_pretrained(cfg)
    assert cfg.model.backbone.branches[0].init_cfg is None
    assert 'deit.pth' not in find_missing(cfg, 'train')


def test_hooks(cfg):
    accept_published_checkpoints(cfg, strict=True)
    assert [(hook.type, hook.strict) for hook in cfg.custom_hooks] == [
        ('PublishedCheckpointHook', True)
    ]
    before = cfg.default_hooks.visualization.type
    assert draw(cfg._cfg_dict).default_hooks.visualization.type == before


@pytest.mark.parametrize('kind', [AmpOptimWrapper, 'mmengine.optim.AmpOptimWrapper'])
def test_amp(kind):
    cfg = switch(dict(optim_wrapper=dict(type=kind, dtype=torch.bfloat16)), amp=True)
    assert cfg.optim_wrapper.loss_scale == 1.0
    cfg.optim_wrapper.type = kind
    with pytest.raises(ValueError, match='needs a GPU, and'):
        load('train.py').check_amp_device(cfg)


def test_augmentation_of_a_config_of_classes_can_be_saved(tmp_path):
    path = tmp_path / 'augmented.py'
    path.write_text(
        'from mmdet.models import DetTTAModel\n'
        'from mmengine.config import read_base\n'
        'with read_base():\n'
        '    from .detector import *\n'
        'tta_model = dict(type=DetTTAModel, tta_cfg=dict(max_per_img=9))\n'
        'tta_pipeline = [load, dict(type=DetTTAModel)]\n'
    )
    for file in DETECTOR.parent.glob('*.py'):
        (tmp_path / file.name).write_text(file.read_text())
    cfg = launch.read_config(str(path), {})
    enable_tta(cfg)
    assert (cfg.model.type, cfg.model.module.type) == (DetTTAModel, MaskRCNN)
    cfg.dump(tmp_path / 'saved.py')
    saved = Config.fromfile(tmp_path / 'saved.py')
    assert saved.model.type == 'mmdet.models.DetTTAModel'
    assert saved.model.tta_cfg.max_per_img == 9


def test_a_backbone_of_a_user():
    class Own(PIIP):
        """A class derived from the network."""

    branch = dict(type='PIIPViT', arch='deit_tiny', img_size=64)
    network = dict(branches=[branch, branch], num_interactions=2)
    network['interaction'] = dict(num_heads=4)
    assert isinstance(build_on_meta(dict(network, type=Own)), Own)
    with pytest.raises(ValueError, match=r"backbone of type 'mmdet.ResNet'"):
        build_on_meta(dict(type='mmdet.ResNet', depth=50))
