# PIIP-SBL at 384, 192 and 128 pixels, from AugReg weights. Configs for other sizes set
# img_size and pretrain_img_size of the branches: position embeddings are stored at the
# size of each branch's image. The head's norms and linear layers are loaded from the same
# files as the branches.
_base_ = 'piip_classifier.py'

url = 'https://storage.googleapis.com/vit_models/augreg/'
files = [
    'S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224.npz',
    'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224.npz',
    'L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224.npz',
]
model = dict(
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                # As in AugReg, without layer scale: the presets have that of PIIP's
                # detectors.
                arch=dict(
                    embed_dims=dims,
                    num_layers=layers,
                    num_heads=dims // 64,
                    init_values=None,
                    cls_pos_row=True,
                ),
                img_size=size,
                pretrain_img_size=size,
                with_cls_token=True,
                drop_path_rate=rate,
                with_cp=True,
                init_cfg=dict(type='Pretrained', checkpoint=url + file),
            )
            for dims, layers, size, rate, file in zip(
                (384, 768, 1024),
                (12, 12, 24),
                (384, 192, 128),
                (0.05, 0.2, 0.4),
                files,
                strict=True,
            )
        ]
    ),
    head=dict(
        in_channels=[384, 768, 1024],
        init_cfg=[dict(type='Pretrained', checkpoint=url + file) for file in files],
    ),
)
