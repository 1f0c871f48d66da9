# A small network for training from scratch in minutes on a CPU: three branches of 4
# blocks, without mixup and CutMix.
_base_ = 'piip_classifier.py'

model = dict(
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch=dict(embed_dims=dims, num_layers=4, num_heads=4),
                img_size=size,
                pretrain_img_size=size,
                patch_size=8,
                with_cls_token=True,
                # The usual standard deviation of 0.02 suits widths of several hundred
                # channels; with it, a network this narrow learns nothing in the first
                # epochs.
                init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
            )
            for dims, size in ((32, 128), (48, 96), (64, 64))
        ],
        interaction=dict(num_heads=8, drop_path_rate=0.0),
        num_interactions=4,
    ),
    head=dict(
        in_channels=[32, 48, 64],
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
    ),
    train_cfg=None,
)
