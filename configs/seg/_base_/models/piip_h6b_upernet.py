# UPerNet on PIIP-H6B at 512 and 512 pixels. Configs for other sizes set img_size and
# pretrain_img_size of the second branch: position embeddings are stored at the size of
# each branch's image.
_base_ = [
    'piip_upernet.py',
    '../../../det/_base_/models/mae_branches.py',
    '../../../det/_base_/models/internvit_branches.py',
]

segmentation = dict(img_size=512, pretrain_img_size=512, mlp_act='gelu_tanh')

model = dict(
    backbone=dict(
        branches=[
            dict(_base_.mae_huge, **segmentation),
            dict(_base_.internvit_6b, **segmentation),
        ],
        interaction=dict(proj=False, norm=None),
        interaction_ends=[_base_.mae_huge_ends, _base_.internvit_6b_ends],
    ),
    decode_head=dict(in_channels=[3200] * 4, channels=1536),
    auxiliary_head=dict(in_channels=3200, channels=1536),
)
