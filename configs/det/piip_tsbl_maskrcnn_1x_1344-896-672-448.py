# PIIP-TSBL 1344/896/672/448.
_base_ = [
    '_base_/models/piip_tsbl_maskrcnn.py',
    '_base_/datasets/coco_instance_1344x806.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches[0].img_size = 1344
_base_.model.backbone.branches[1].img_size = 896
_base_.model.backbone.branches[2].img_size = 672
