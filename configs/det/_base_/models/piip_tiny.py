# A small network for training from scratch in minutes on a CPU: Mask R-CNN on three
# branches of 4 blocks, with fewer channels and samples in the heads.
_base_ = 'piip_maskrcnn.py'

channels = 64

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        branches=[
            dict(
                type='PIIPViT',
                arch=dict(embed_dims=dims, num_layers=4, num_heads=4),
                img_size=size,
                pretrain_img_size=size,
                patch_size=8,
            )
            for dims, size in ((48, 320), (64, 240), (96, 160))
        ],
        interaction=dict(num_heads=8, drop_path_rate=0.0),
        num_interactions=4,
        # The merged map has stride 8 and images are small, so there is no level of stride
        # 32.
        out_strides=(4, 8, 16),
    ),
    neck=dict(in_channels=[96] * 3, out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[6], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, featmap_strides=[4, 8, 16]),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels, featmap_strides=[4, 8, 16]),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_convs=2),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
