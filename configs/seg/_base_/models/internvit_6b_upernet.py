# UPerNet on InternViT-6B alone at 512 pixels, with all maps from its last block.
_base_ = ['upernet.py', '../../../det/_base_/models/internvit_branches.py']

model = dict(
    backbone=dict(
        type='ViTPyramid',
        branch=dict(
            _base_.internvit_6b,
            img_size=512,
            pretrain_img_size=512,
            mlp_act='gelu_tanh',
        ),
        out_strides=(4, 8, 16, 32),
    ),
    decode_head=dict(in_channels=[3200] * 4, channels=1536),
    auxiliary_head=dict(in_channels=3200, channels=1536),
)
