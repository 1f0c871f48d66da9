# PIIP-SBL 1568/1120/672 from DeiT III weights: Mask R-CNN, COCO, 12 epochs.
_base_ = [
    '_base_/models/piip_sbl_maskrcnn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]
