# The baseline ViT-L, with the schedule of PIIP-H6B. It was not released.
_base_ = 'vit_b_upernet_80k_640.py'

_base_.model.backbone.branch.update(_base_.deit3_large)
model = dict(
    decode_head=dict(in_channels=[1024] * 4), auxiliary_head=dict(in_channels=1024)
)
