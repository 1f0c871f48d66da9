# PIIP-TSB 1568/1120/672: Mask R-CNN, COCO, 12 epochs, from DeiT (T)
# and DeiT III weights.
_base_ = [
    '_base_/models/piip_tsb_maskrcnn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]
