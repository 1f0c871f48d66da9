"""Classification heads: values, augmentations, errors."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample

from piip_mm.models.heads import PIIPMergedHead, PIIPSeparateHead


def randomised(module):
    """The module with every parameter random, so that none of them goes unnoticed."""
    generator = torch.Generator().manual_seed(0)
    for param in module.parameters():
        values = torch.randn(param.shape, generator=generator)
        param.data.copy_(values * 0.3 + (param.ndim < 2))
    return module


def labelled(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def layer_norm(x, layer):
    """LayerNorm over the last dimension, written out."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-6).sqrt() * layer.weight + layer.bias


def group_norm(maps, layer):
    """GroupNorm of 32 groups, written out."""
    groups = maps.unflatten(1, (32, -1)).flatten(2)
    centred = groups - groups.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    normed = (centred / (variance + 1e-5).sqrt()).view_as(maps)
    return normed * layer.weight[:, None, None] + layer.bias[:, None, None]


def test_detection_goes_without_mmpretrain():
    code = "import sys, piip_mm; assert 'mmpretrain' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_separate_head_of_class_tokens():
    head = randomised(PIIPSeparateHead(5, [4, 6]))
    tokens = torch.randn(3, 4) * 1e-2, torch.randn(3, 6) * 1e-2
    logits = [
        layer_norm(token, norm) @ classifier.weight.T + classifier.bias
        for token, norm, classifier in zip(
            tokens, head.norms, head.classifiers, strict=True
        )
    ]
    torch.testing.assert_close(head(tokens), (logits[0] + logits[1]) / 2)


def test_separate_head_of_maps():
    """The released models take the first patch, published single branches without class
    token the mean of the normalised patches."""
    maps = torch.randn(3, 4, 5, 2), torch.randn(3, 6, 2, 3)
    head = randomised(PIIPSeparateHead(5, [4, 6], token='first_patch'))
    tokens = [feat[:, :, 0, 0] for feat in maps]
    of_tokens = PIIPSeparateHead(5, [4, 6])
    of_tokens.load_state_dict(head.state_dict())
    assert torch.equal(head(maps), of_tokens(tokens))

    head.token = 'mean'
    expected = 0
    for feat, norm, classifier in zip(maps, head.norms, head.classifiers, strict=True):
        patches = layer_norm(feat.flatten(2).transpose(1, 2), norm)
        expected = expected + classifier(patches.mean(1)) / 2
    torch.testing.assert_close(head(maps), expected)


def test_norm_of_a_branch():
    head = PIIPSeparateHead(5, [4, 6], norm=['LN', 'RMS'])
    tokens = torch.randn(2, 4), torch.randn(2, 6)
    _, normed = head.pre_logits(tokens)
    rms = (tokens[1].square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(normed, tokens[1] / rms)


def test_merged_head():
    head = randomised(PIIPMergedHead(5, [32, 64])).double()
    # So small that the epsilon of GroupNorm and LayerNorm shows.
    for scale in head.scales.values():
        scale.data.mul_(1e-3)
    head.branches[0].linear.weight.data.mul_(1e-3)
    high, low = torch.randn(2, 32, 6, 4), torch.randn(2, 64, 3, 2)
    high, low = high.double() * 1e-2, low.double() * 1e-2
    projection, norm = head.branches
    projected = group_norm(high, projection.norm1).permute(0, 2, 3, 1)
    projected = projected @ projection.linear.weight.T + projection.linear.bias
    projected = group_norm(projected.permute(0, 3, 1, 2), projection.norm2)
    upsampled = F.interpolate(
        group_norm(low, norm), size=(6, 4), mode='bilinear', align_corners=False
    )
    merged = head.scales['0'] * projected + head.scales['1'] * upsampled
    tokens = layer_norm(merged.flatten(2).transpose(1, 2), head.norm)
    expected = head.classifier(tokens.mean(1))
    logits = head((high, low))
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    assert all(param.grad.any() for param in head.parameters())


def test_initial_scales_of_the_merged_head():
    scales = PIIPMergedHead(5, [32, 64]).scales
    assert {name: x.item() for name, x in scales.items()} == {'0': 1.0, '1': 1.0}


def test_loss_of_labels():
    head = randomised(PIIPSeparateHead(3, [4], loss=dict(type='CrossEntropyLoss')))
    tokens = torch.randn(4, 4)
    labels = torch.tensor([0, 2, 1, 2])
    loss = head.loss([tokens], labelled(labels))['loss']
    probabilities = head([tokens]).softmax(1)[range(4), labels]
    torch.testing.assert_close(loss, -probabilities.log().mean())


def preprocessor(**kwargs):
    return MODELS.build(
        dict(type='mmpretrain.ClsDataPreprocessor', num_classes=3, **kwargs)
    )


@pytest.mark.parametrize('augment', ['Mixup', 'CutMix'])
def test_mixed_images(augment):
    """Scores of mixed labels, smoothed, against the cross-entropy of soft targets."""
    augments = dict(augments=[dict(type=augment, alpha=1.0)])
    images = torch.randint(0, 255, (8, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    np.random.seed(0)
    data = preprocessor(batch_augments=augments)(
        dict(inputs=images, data_samples=labelled([0, 1, 2, 0, 1, 2, 0, 1])), True
    )
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    torch.testing.assert_close(scores.sum(1), torch.ones(8))
    assert ((scores > 0).sum(1) > 1).any()
    assert not torch.equal(data['inputs'], images.float())

    smooth = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    head = randomised(PIIPSeparateHead(3, [4], loss=smooth))
    tokens = torch.randn(8, 4)
    loss = head.loss([tokens], data['data_samples'])['loss']
    targets = scores * 0.9 + 0.1 / 3
    expected = -(targets * head([tokens]).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_augmentations_stay_out_of_tests():
    augments = dict(augments=[dict(type='Mixup', alpha=1.0)])
    images = torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8)
    data = preprocessor(batch_augments=augments)(dict(inputs=images), False)
    assert torch.equal(data['inputs'], images.float())


def test_predictions():
    head = randomised(PIIPSeparateHead(3, [4]))
    tokens = torch.randn(2, 4)
    predicted = head.predict([tokens], labelled([1, 2]))
    scores = head([tokens]).softmax(1)
    for sample, score in zip(predicted, scores, strict=True):
        assert torch.equal(sample.pred_score, score)
        assert sample.pred_label.item() == score.argmax()


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: PIIPSeparateHead(0, [4]), r'num_classes=0: expected an integer of'),
        (lambda: PIIPSeparateHead(3, 4), r'in_channels=4: expected a list'),
        (lambda: PIIPSeparateHead(3, []), r'in_channels is empty'),
        (lambda: PIIPSeparateHead(3, [4, 0]), r'in_channels\[1\]=0: expected an integer'),
        (
            lambda: PIIPSeparateHead(3, [4], token='patch'),
            r"unknown token 'patch'; choose one of 'cls', 'first_patch', 'mean'",
        ),
        (
            lambda: PIIPSeparateHead(3, [4], norm='BN'),
            r"unknown norm 'BN'; choose one of 'LN', 'RMS'",
        ),
        (
            lambda: PIIPSeparateHead(3, [4, 6], norm=['LN']),
            r"norm \['LN'\] for 2 branches",
        ),
        (
            lambda: PIIPMergedHead(3, [48, 64]),
            r'in_channels 48 is not divisible by GroupNorm groups 32',
        ),
    ],
)
def test_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    'head, feats, message',
    [
        (
            lambda: PIIPSeparateHead(3, [4, 6]),
            [(2, 4)],
            r'\[\(2, 4\)\] do not fit in_channels \(4, 6\)',
        ),
        (
            lambda: PIIPSeparateHead(3, [4, 6]),
            [(2, 6), (2, 4)],
            r'do not fit in_channels \(4, 6\).*in the order of the backbone',
        ),
        (
            lambda: PIIPSeparateHead(3, [4]),
            [(2, 4, 3, 3)],
            r"expected class tokens \(B, C\); set out_type='cls_tokens'",
        ),
        (
            lambda: PIIPSeparateHead(3, [4], token='first_patch'),
            [(2, 4)],
            r"expected maps \(B, C, H, W\); set out_type='maps'",
        ),
        (lambda: PIIPMergedHead(3, [32]), [(2, 32)], r"set out_type='maps'"),
    ],
)
def test_features_that_do_not_fit(head, feats, message):
    with pytest.raises(ValueError, match=message):
        head()([torch.randn(shape) for shape in feats])


@pytest.fixture
def checkpoint(tmp_path):
    """Norm and classifier of five classes, next to other parts of a network."""
    weights = randomised(
        torch.nn.ModuleDict(
            {'norm': torch.nn.LayerNorm(4), 'head': torch.nn.Linear(4, 5)}
        )
    ).state_dict()
    torch.save({'model': weights | {'pos_embed': torch.ones(1)}}, tmp_path / 'a.pth')
    return dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')), weights


def test_pretrained_heads(checkpoint):
    init_cfg, weights = checkpoint
    head = PIIPSeparateHead(5, [4, 4], init_cfg=[init_cfg, init_cfg])
    head.init_weights()
    for norm, classifier in zip(head.norms, head.classifiers, strict=True):
        assert torch.equal(norm.bias, weights['norm.bias'])
        assert torch.equal(classifier.weight, weights['head.weight'])


def test_pretrained_norm_for_other_classes(checkpoint):
    init_cfg, weights = checkpoint
    head = PIIPSeparateHead(3, [4], init_cfg=init_cfg)
    before = head.classifiers[0].weight.clone()
    head.init_weights()
    assert torch.equal(head.norms[0].weight, weights['norm.weight'])
    assert torch.equal(head.classifiers[0].weight, before)


def test_pretrained_heads_that_do_not_fit(checkpoint):
    init_cfg, _ = checkpoint
    with pytest.raises(ValueError, match=r'1 pretrained files.* head on 2 branches'):
        PIIPSeparateHead(5, [4, 4], init_cfg=init_cfg).init_weights()
    with pytest.raises(ValueError, match=r'norm.weight is \(4,\) in the file, \(6,\) h'):
        PIIPSeparateHead(5, [6], init_cfg=init_cfg).init_weights()


def test_pretrained_heads_of_every_branch(tmp_path):
    head = dict(type='PIIPSeparateHead', num_classes=2, in_channels=[32, 32])
    entry = dict(type=PretrainedInit, checkpoint='a.pth')
    with pytest.raises(ValueError, match='1 pretrained files in init_cfg of a head on 2'):
        MODELS.build(dict(head, init_cfg=entry))
    with pytest.raises(ValueError, match=r"unknown keys \['path'\] of init_cfg"):
        MODELS.build(dict(head, init_cfg=[entry, dict(entry, path='b.pth')]))
    tensors = {'norm.weight': torch.rand(32), 'norm.bias': torch.rand(32)}
    names = {f'net.{i}.{n}': x + i for n, x in tensors.items() for i in (0, 1)}
    path = str(tmp_path / 'a.pth')
    torch.save(names, path)
    init = [dict(entry, checkpoint=path, prefix=f'net.{i}') for i in (0, 1)]
    built = MODELS.build(dict(head, init_cfg=init))
    built.init_weights()
    for index, norm in enumerate(built.norms):
        torch.testing.assert_close(norm.bias.data, tensors['norm.bias'] + index)
