# Mask R-CNN on PIIP-SBL: DeiT III small, base and large, pretrained on ImageNet-21k, at
# 1568, 1120 and 672 pixels. A config for other sizes sets img_size of the branches.
_base_ = 'piip_maskrcnn.py'

deit3 = 'https://dl.fbaipublicfiles.com/deit/deit_3_'
model = dict(
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch='deit3_small',
                img_size=1568,
                window_size=28,
                drop_path_rate=0.05,
                init_cfg=dict(type='Pretrained', checkpoint=deit3 + 'small_224_21k.pth'),
            ),
            dict(
                type='PIIPViT',
                arch='deit3_base',
                img_size=1120,
                window_size=28,
                drop_path_rate=0.15,
                init_cfg=dict(type='Pretrained', checkpoint=deit3 + 'base_224_21k.pth'),
            ),
            dict(
                type='PIIPViT',
                arch='deit3_large',
                img_size=672,
                window_size=28,
                drop_path_rate=0.4,
                init_cfg=dict(type='Pretrained', checkpoint=deit3 + 'large_224_21k.pth'),
            ),
        ]
    ),
    neck=dict(in_channels=[1024] * 4),
)
