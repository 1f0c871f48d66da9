"""Values of every kind for every option: they build, or the error names the option.

Options of timm's models and of pretrained weights are tested elsewhere.
"""

import re

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS, MODELS

import piip_mm.engine
import piip_mm.models.heads

VALUES = {
    **{repr(value): value for value in (None, True, False, 0, -1, 1, 3, 10**30)},
    **{repr(value): value for value in (1.5, 0.5, 0.0, -0.5, 2j, b'3')},
    **{repr(value): value for value in ('', 'yes', '3', 'False', 'nan')},
    **{text: float(text) for text in ('nan', 'inf', '-inf')},
    **{repr(value): value for value in ([], [None], [3], ['3'], [-1], [[3]], [True])},
    **{repr(value): value for value in ((), (3,), {}, {'a': 1}, {3}, range(2))},
    'np.int64(3)': np.int64(3),
    'np.float32(0.5)': np.float32(0.5),
    'np.float64(0.5)': np.float64(0.5),
    'np.bool_(True)': np.bool_(True),
    'object()': object(),
}

BOOL = {'True', 'False'}
INT = {'1', '3', 'np.int64(3)'}
RATE = {'0', '0.0', '0.5', 'np.float32(0.5)', 'np.float64(0.5)'}
RATIO = (RATE | INT | {'1.5'}) - {'0', '0.0'}
FINITE = RATIO | {'None', '0', '0.0', '-1', '-0.5'}
NONE = {'None'}

ARCH = dict(embed_dims=32, num_layers=4, num_heads=4)


def vit(**options):
    defaults = dict(type='PIIPViT', arch=ARCH, img_size=64, pretrain_img_size=64)
    return {**defaults, **options}


def network(**options):
    defaults = dict(
        branches=[vit(), vit()], num_interactions=2, interaction=dict(num_heads=4)
    )
    return dict(type='PIIP', **{**defaults, **options})


def interaction(**options):
    return network(interaction=dict(num_heads=4) | options)


def of_arch(base):
    return lambda **options: base(arch={**ARCH, **options})


def cfg(type_, **defaults):
    return lambda **options: {'type': type_, **defaults, **options}


beit = cfg('PIIPBEiT', arch=ARCH, img_size=64)
uniperceiver = cfg('PIIPUniPerceiver', arch=ARCH, img_size=64, pretrain_img_size=64)
STAGES = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
convnext = cfg('PIIPConvNeXt', arch=STAGES, img_size=64)

BRANCH = dict(img_size=set(), with_cp=BOOL, frozen_stages=INT | {'0', '-1'})
PLAIN = BRANCH | dict(
    arch=set(),
    patch_size=INT,
    in_channels=INT,
    window_size=INT | NONE,
    global_attn_indexes={'[]', '()', '[3]', '(3,)'},
    drop_path_rate=RATE,
    drop_path_schedule=set(),
    mlp_act=set(),
)

#: Of each part of a config: how it is built, and its options with the values that build.
OPTIONS = {
    'PIIP': (
        network,
        dict(
            branches=set(),
            num_interactions={'0', '1'},
            interaction=NONE | {'{}'},
            interaction_ends=NONE,
            merge_branches=NONE,
            out_strides=set(),
            out_interactions=NONE,
            out_type=set(),
        ),
    ),
    'interaction': (
        interaction,
        dict(
            attn=set(),
            num_heads={'1'},
            num_points=INT,
            value_ratio=RATIO,
            ffn_ratio=RATIO | NONE,
            drop_path_rate=RATE,
            proj=BOOL,
            norm=NONE,
            backend=set(),
            with_cp=BOOL,
            direction=set(),
        ),
    ),
    'ViTPyramid': (
        cfg('ViTPyramid', branch=vit()),
        dict(branch=set(), out_strides=set(), out_blocks=NONE, norm=set())
        | dict(out_type=set()),
    ),
    'PIIPViT': (
        vit,
        PLAIN
        | dict(pretrain_img_size=NONE, window_pad=set(), with_cls_token=BOOL)
        | dict(cls_pos={'False'}),
    ),
    'PIIPViT.arch': (
        of_arch(vit),
        dict(embed_dims=set(), num_layers=INT, num_heads={'1'}, mlp_ratio=RATIO)
        | dict(init_values=FINITE, qkv_bias=BOOL, norm=set(), qk_norm=BOOL)
        | dict(cls_pos_row=BOOL),
    ),
    'PIIPBEiT': (
        beit,
        PLAIN | dict(window_size=INT, global_attn_indexes={'[]', '()'}),
    ),
    'PIIPBEiT.arch': (of_arch(beit), dict(qkv_bias=BOOL)),
    'PIIPUniPerceiver': (uniperceiver, PLAIN | dict(pretrain_img_size=NONE)),
    'PIIPConvNeXt': (
        convnext,
        BRANCH
        | dict(arch=set(), in_channels=INT, drop_path_rate=RATE)
        | dict(layer_scale_init_value=FINITE),
    ),
    'PIIPConvNeXt.arch': (
        lambda **options: convnext(arch={**STAGES, **options}),
        dict(depths=set(), dims=set()),
    ),
    'PIIPTimm': (
        cfg('PIIPTimm', model='test_vit', img_size=64),
        dict(model=set(), drop_path_rate=RATE),
    ),
    'PIIPMergedHead': (
        cfg('PIIPMergedHead', num_classes=3, in_channels=[32, 64]),
        dict(num_classes=INT, in_channels=set()),
    ),
    'PIIPSeparateHead': (
        cfg('PIIPSeparateHead', num_classes=3, in_channels=[32, 64]),
        dict(num_classes=INT, in_channels={'[3]', '(3,)'}, token=set(), norm=set()),
    ),
}


def error_of(config):
    """The text of the error with which a config is refused; None if it is built."""
    try:
        with torch.device('meta'):
            MODELS.build(config)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ('part', 'option'),
    [(part, option) for part, (_, options) in OPTIONS.items() for option in options],
)
def test_values(part, option):
    make, options = OPTIONS[part]
    errors = {text: error_of(make(**{option: x})) for text, x in VALUES.items()}
    assert {text for text, error in errors.items() if error is None} == options[option]
    for text, error in errors.items():
        assert error is None or re.search(rf'\b{option}', error), (text, error)


@pytest.mark.parametrize(
    ('make', 'option', 'values', 'accepted'),
    [
        (vit, 'window_size', [3, 3, 3, 3], INT | NONE),
        (vit, 'global_attn_indexes', [0, 2], INT | {'0'}),
        (network, 'merge_branches', [0, 1], {'1'}),
        (network, 'out_strides', [4, 8, 16, 32], set()),
        (network, 'interaction_ends', [[1, 3], [1, 3]], set()),
        (cfg('ViTPyramid', branch=vit()), 'out_blocks', [0, 1, 2, 3], {'0', '1'}),
        (cfg('ViTPyramid', branch=vit()), 'out_strides', [4, 8, 16, 32], set()),
        (OPTIONS['PIIPConvNeXt.arch'][0], 'depths', [1, 1, 1, 1], INT),
        (OPTIONS['PIIPConvNeXt.arch'][0], 'dims', [8, 8, 8, 8], INT),
        (OPTIONS['PIIPSeparateHead'][0], 'in_channels', [32, 64], INT),
        (OPTIONS['PIIPSeparateHead'][0], 'norm', ['LN', 'RMS'], set()),
    ],
)
def test_values_in_lists(make, option, values, accepted):
    for text, value in VALUES.items():
        error = error_of(make(**{option: [values[0], value, *values[2:]]}))
        assert (error is None) == (text in accepted), (text, error)
        assert error is None or re.search(rf'\b{option}', error), (text, error)


def test_the_element_of_a_list_is_named():
    error = error_of(network(branches=[vit(), vit(global_attn_indexes=[0, '1'])]))
    assert error.startswith(
        "branches[1]: global_attn_indexes[1]='1': expected an integer"
    )


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            network(num_interaction=2),
            "PIIP got an unexpected keyword argument 'num_interaction'; similar options: "
            'num_interactions',
        ),
        (
            vit(windows_size=2),
            "PIIPViT got an unexpected keyword argument 'windows_size'; similar options: "
            'window_size',
        ),
        (
            vit(with_ckpt=True),
            "PIIPViT got an unexpected keyword argument 'with_ckpt'; similar options: "
            'with_cp',
        ),
        (
            convnext(dims=(1, 2)),
            "PIIPConvNeXt got multiple values for keyword argument 'dims'; similar",
        ),
        (
            cfg('PIIPSeparateHead', num_classes=3, in_channels=[8])(top_k=1),
            "PIIPSeparateHead got an unexpected keyword argument 'top_k'; similar "
            'options: topk',
        ),
        (
            dict(type='PIIPViT', arch=ARCH),
            "PIIPViT missing 1 required positional argument: 'img_size'; similar",
        ),
        (
            interaction(num_head=2),
            "unknown keys ['num_head'] of interaction; choose from direction, attn",
        ),
        (
            network(branches=[vit(), {}]),
            'branches[1].type=None: expected a branch: PIIPBEiT, PIIPConvNeXt, ',
        ),
        (
            network(branches=[vit(type='PIIPVit'), vit()]),
            "branches[0].type='PIIPVit': expected a branch: PIIPBEiT, PIIPConvNeXt, ",
        ),
        (
            interaction(ffn_ratio=0.01),
            'int(32 * ffn_ratio)=0: expected an integer of at least 1',
        ),
    ],
)
def test_other_mistakes(config, message):
    assert message in error_of(config)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(type='PublishedCheckpointHook', strict='no'), "strict='no': expected True"),
        (
            dict(type='PublishedCheckpointHook', ignore='neck.'),
            "ignore='neck.': expected a list",
        ),
        (dict(type='DrawPredictionsHook', draw='no'), "draw='no': expected True or"),
        (dict(type='DrawPredictionsHook', show=1), 'show=1: expected True or False'),
        (dict(type='DrawPredictionsHook', wait_time=-1), 'wait_time=-1: expected a fin'),
    ],
)
def test_hooks(config, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(config)


def test_errors_inside_a_module_stay_what_they_are():
    with pytest.raises(TypeError, match='VisionTransformer'):
        piip_mm.checks.OptionErrors('A', (), {'__init__': lambda self: fail()})()


def fail():
    raise TypeError("VisionTransformer.__init__() got an unexpected keyword argument 'a'")


def test_numbers_of_numpy_are_computed_with():
    sides = np.array([64, 48])
    branches = [
        vit(
            img_size=side,
            patch_size=np.int64(16),
            pretrain_img_size=sides[0],
            window_size=np.int64(2),
            drop_path_rate=np.float32(0.1),
            arch=dict(embed_dims=np.int64(32), num_layers=np.int64(4))
            | dict(num_heads=np.int64(4), mlp_ratio=np.float32(2)),
        )
        for side in sides
    ]
    config = network(
        branches=branches,
        num_interactions=np.int64(2),
        interaction=dict(
            num_heads=np.int64(4),
            num_points=np.int64(2),
            value_ratio=np.float32(0.5),
            direction=[[[np.array([1, 0])], [np.array([0, 1])]]],
        ),
        merge_branches=np.array([0, 1]).tolist(),
        out_strides=list(np.array([8, 16], 'float32')),
    )
    maps = MODELS.build(config)(torch.rand(1, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [(1, 32, 8, 8), (1, 32, 4, 4)]


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64, torch.bool])
def test_images_of_integers(dtype):
    network_ = MODELS.build(network())
    with pytest.raises(
        ValueError, match=rf'type {dtype}: expected floating-point images'
    ):
        network_(torch.ones(1, 3, 64, 64, dtype=dtype))


def test_images_of_other_precision_and_with_gradients():
    network_ = MODELS.build(network()).eval()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    maps = network_(image)
    assert {x.dtype for x in maps} == {torch.float32}
    torch.testing.assert_close(maps, network_(image.float()))
    maps[0].sum().backward()
    assert image.grad.abs().sum() > 0
