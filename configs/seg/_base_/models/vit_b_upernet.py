# UPerNet on ViT-B alone at 640 pixels. The paper gives the crop and the FLOPs. The
# attention windows (those of the PIIP models, with which the FLOPs differ by 1 %), the
# channels of the heads and the stride of the sliding windows are our choice.
_base_ = ['upernet.py', '../../../det/_base_/models/deit_branches.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        type='ViTPyramid',
        branch=dict(
            _base_.deit3_base, img_size=640, pretrain_img_size=640, window_size=28
        ),
        out_strides=(4, 8, 16, 32),
    ),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)
