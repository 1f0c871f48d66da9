# UPerNet on PIIP-TSB at 896, 448 and 336 pixels. The paper gives sizes and FLOPs; only
# windows of 28 tokens at 896 pixels and global attention on the smaller images match
# these FLOPs. The channels of the heads, the crop and the stride of the sliding windows
# are our choice.
_base_ = ['piip_upernet.py', '../../../det/_base_/models/deit_branches.py']

model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(
        branches=[
            dict(_base_.deit_tiny, img_size=896, pretrain_img_size=896, window_size=28),
            dict(_base_.deit3_small, img_size=448, pretrain_img_size=448),
            dict(_base_.deit3_base, img_size=336, pretrain_img_size=336),
        ]
    ),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(crop_size=(896, 896), stride=(597, 597)),
)
