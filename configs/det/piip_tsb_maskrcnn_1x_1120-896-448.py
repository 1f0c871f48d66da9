# PIIP-TSB 1120/896/448.
_base_ = [
    '_base_/models/piip_tsb_maskrcnn.py',
    '_base_/datasets/coco_instance_1120x672.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches[0].img_size = 1120
_base_.model.backbone.branches[1].img_size = 896
_base_.model.backbone.branches[2].img_size = 448
