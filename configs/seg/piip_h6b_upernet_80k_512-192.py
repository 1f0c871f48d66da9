# PIIP-H6B 512/192: MAE-H and InternViT-6B, UPerNet, ADE20K, 80 000 iterations.
_base_ = [
    '_base_/models/piip_h6b_upernet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/piip_80k.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches[1].update(img_size=192, pretrain_img_size=192)
