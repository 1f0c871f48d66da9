"""Where pretrained weights come from."""

import hashlib
import logging

import pytest
import timm
import torch
from mmengine.registry import MODELS

from piip_mm.weights import source
from piip_mm.weights.pretrained import load_pretrained_vit


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty download folder."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    return tmp_path / 'hub/hub/checkpoints'


def served(path, checksum=None):
    """URL of a new file, whose name may hold a checksum."""
    torch.save({'model': {'weight': torch.ones(2)}}, path)
    digest = checksum or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f'deit-{digest}.pth')).as_uri()


def test_download_with_a_checksum(hub, tmp_path):
    url = served(tmp_path / 'new.pth')
    assert source.load_weights(url)['model']['weight'].tolist() == [1, 1]
    assert [path.name for path in hub.iterdir()] == [url.rsplit('/', 1)[1]]


def test_damaged_download_leaves_nothing_behind(hub, tmp_path):
    url = served(tmp_path / 'new.pth', checksum='0badbeef')
    with pytest.raises(ValueError, match=r'deit-0badbeef.pth is damaged: invalid hash'):
        source.load_weights(url)
    assert list(hub.iterdir()) == []


def test_unreachable(hub, tmp_path):
    with pytest.raises(ConnectionError, match=r'cannot download file:.*set init_cfg'):
        source.load_weights((tmp_path / 'gone.pth').as_uri())
    assert list(hub.iterdir()) == []


def test_code_in_a_file_is_not_executed(tmp_path):
    path = tmp_path / 'code.pth'
    torch.save({'model': logging.Formatter()}, path)
    with pytest.raises(Exception, match='Weights only load failed'):
        source.load_weights(str(path))


def test_timm_by_name(monkeypatch):
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(timm, 'create_model', create_model)
    weights = source.load_weights('timm://deit_tiny_patch16_224.fb_in1k')
    assert asked == [('deit_tiny_patch16_224.fb_in1k', True)]
    assert set(weights) == {'weight', 'bias'}


@pytest.mark.parametrize(
    'name, side',
    [('deit3_small_patch16_384', 24), ('deit_tiny_distilled_patch16_224', 14)],
)
def test_timm_models_become_branches(monkeypatch, name, side):
    original = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, pretrained: original(name))
    arch = 'deit3_small' if 'small' in name else 'deit_tiny'
    cfg = dict(type='PIIPViT', arch=arch, img_size=224, pretrain_img_size=16 * side)
    branch = MODELS.build(cfg)
    report = load_pretrained_vit(branch, f'timm://{name}')
    scales = [name for name in report.missing if '.ls' in name]
    assert report.missing == scales and bool(scales) == ('tiny' in name)
    assert branch.pos_embed.shape[1] == side**2
    assert {'norm.weight', 'cls_token', 'head.weight'} <= set(report.dropped)


def test_missing_files_say_where_to_get_them():
    url = 'https://dl.fbaipublicfiles.com/deit/deit_3_base_224_21k.pth'
    with pytest.raises(FileNotFoundError, match=f'download it from {url}'):
        source.load_weights('gone/deit_3_base_224_21k.pth')


def test_unknown_timm_model():
    with pytest.raises(ValueError, match=r"no model 'deit_tiny'; .*'deit_tiny_patch16"):
        source.load_weights('timm://deit_tiny')


def test_timm_without_a_network(monkeypatch):
    def create_model(name, pretrained):
        raise OSError('offline')

    monkeypatch.setattr(timm, 'create_model', create_model)
    with pytest.raises(ConnectionError, match=r"weights of 'deit_tiny.*\(offline\)"):
        source.load_weights('timm://deit_tiny_patch16_224')
