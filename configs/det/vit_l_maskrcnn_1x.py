# The baseline ViT-L: Mask R-CNN, COCO, 12 epochs.
_base_ = 'vit_b_maskrcnn_1x.py'

_base_.model.backbone.branch.update(
    _base_.deit3_large, global_attn_indexes=[2, 5, 8, 11, 14, 17, 20, 23]
)
model = dict(neck=dict(in_channels=[1024] * 4))
