# The branches of the published DeiT models; configs add img_size and window_size:
# dict(_base_.deit3_small, img_size=1568, window_size=28).
# DeiT III is pretrained on ImageNet-21k, DeiT on ImageNet-1k, at 224 or 384 pixels.
deit_tiny = dict(
    type='PIIPViT',
    arch='deit_tiny',
    drop_path_rate=0.05,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth',
    ),
)
deit3_small = dict(
    type='PIIPViT',
    arch='deit3_small',
    drop_path_rate=0.05,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_small_224_21k.pth',
    ),
)
deit3_base = dict(
    type='PIIPViT',
    arch='deit3_base',
    drop_path_rate=0.15,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_base_224_21k.pth',
    ),
)
deit3_large = dict(
    type='PIIPViT',
    arch='deit3_large',
    drop_path_rate=0.4,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_large_224_21k.pth',
    ),
)
deit3_small_384 = dict(
    deit3_small,
    pretrain_img_size=384,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_small_384_21k.pth',
    ),
)
deit3_base_384 = dict(
    deit3_base,
    pretrain_img_size=384,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_base_384_21k.pth',
    ),
)
deit3_large_384 = dict(
    deit3_large,
    pretrain_img_size=384,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_large_384_21k.pth',
    ),
)
