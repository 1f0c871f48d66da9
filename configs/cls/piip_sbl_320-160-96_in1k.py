# PIIP-SBL 320/160/96 from AugReg weights: ImageNet-1k, 20 epochs.
_base_ = [
    '_base_/models/piip_sbl.py',
    '_base_/datasets/imagenet_320.py',
    '_base_/schedules/piip_20e.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches[0].update(img_size=320, pretrain_img_size=320)
_base_.model.backbone.branches[1].update(img_size=160, pretrain_img_size=160)
_base_.model.backbone.branches[2].update(img_size=96, pretrain_img_size=96)
