# UPerNet on PIIP-SBL at 1120, 448 and 336 pixels. The paper gives sizes and FLOPs; only
# windows of 28 tokens at 1120 pixels and global attention on the smaller images match
# these FLOPs. The channels of the heads, the crop and the stride of the sliding windows
# are our choice.
_base_ = ['piip_upernet.py', '../../../det/_base_/models/deit_branches.py']

model = dict(
    data_preprocessor=dict(size=(1120, 1120)),
    backbone=dict(
        branches=[
            dict(
                _base_.deit3_small,
                img_size=1120,
                pretrain_img_size=1120,
                window_size=28,
            ),
            dict(_base_.deit3_base, img_size=448, pretrain_img_size=448),
            dict(_base_.deit3_large, img_size=336, pretrain_img_size=336),
        ]
    ),
    decode_head=dict(in_channels=[1024] * 4),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(crop_size=(1120, 1120), stride=(746, 746)),
)
