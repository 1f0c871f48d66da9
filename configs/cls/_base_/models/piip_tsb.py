# PIIP-TSB at 368, 192 and 128 pixels, from DeiT weights. Position embeddings are stored
# at the size of each branch's image. The head's norms and linear layers are loaded from
# the same files as the branches.
_base_ = 'piip_classifier.py'

url = 'https://dl.fbaipublicfiles.com/deit/'
files = [
    'deit_tiny_patch16_224-a1311bcf.pth',
    'deit_small_patch16_224-cd65a155.pth',
    'deit_base_patch16_224-b5f2ef4d.pth',
]
model = dict(
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch=arch,
                img_size=size,
                pretrain_img_size=size,
                with_cls_token=True,
                drop_path_rate=rate,
                with_cp=True,
                init_cfg=dict(type='Pretrained', checkpoint=url + file),
            )
            for arch, size, rate, file in zip(
                ('deit_tiny', 'deit_small', 'deit_base'),
                (368, 192, 128),
                (0.05, 0.05, 0.2),
                files,
                strict=True,
            )
        ]
    ),
    head=dict(
        in_channels=[192, 384, 768],
        init_cfg=[dict(type='Pretrained', checkpoint=url + file) for file in files],
    ),
)
