# A small network for training from scratch in minutes on a CPU: UPerNet on three branches
# of 4 blocks, with fewer channels in the heads.
_base_ = 'piip_upernet.py'

# SyncBN does not run on CPUs.
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch=dict(embed_dims=dims, num_layers=4, num_heads=4),
                img_size=size,
                pretrain_img_size=size,
                patch_size=8,
            )
            for dims, size in ((48, 160), (64, 120), (96, 80))
        ],
        interaction=dict(num_heads=8, drop_path_rate=0.0),
        num_interactions=4,
        # The merged map has stride 8 and images are small, so there is no level of stride
        # 32.
        out_strides=(4, 8, 16),
    ),
    decode_head=dict(
        in_channels=[96] * 3, in_index=[0, 1, 2], channels=48, norm_cfg=norm_cfg
    ),
    auxiliary_head=dict(in_channels=96, in_index=1, channels=48, norm_cfg=norm_cfg),
    test_cfg=dict(crop_size=(160, 160), stride=(107, 107)),
)
