# PIIP-B at 512, 256 and 128 pixels, for training from scratch: branches without class
# tokens, whose maps are merged before one linear layer, and windowed attention in the
# first branch.
_base_ = 'piip_classifier.py'

model = dict(
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch=dict(embed_dims=dims, num_layers=12, num_heads=heads),
                img_size=size,
                pretrain_img_size=size,
                window_size=window,
                drop_path_rate=0.1,
                with_cp=True,
            )
            for dims, heads, size, window in (
                (160, 2, 512, 16),
                (320, 4, 256, None),
                (640, 8, 128, None),
            )
        ],
        interaction=dict(drop_path_rate=0.1),
        out_type='maps',
    ),
    head=dict(
        _delete_=True,
        type='PIIPMergedHead',
        num_classes=1000,
        in_channels=[160, 320, 640],
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
