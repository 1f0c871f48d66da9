# PIIP-SBL 1568/1120/672 from DeiT III weights: Cascade Mask R-CNN, COCO, 36 epochs,
# multi-scale training. The paper reports its results with this schedule, but the
# configuration was not published. The sizes, the head (see _base_/models/cascade.py), the
# scales and the other settings of the optimizer, which are as for Mask R-CNN, are our
# choice.
_base_ = [
    '_base_/models/piip_sbl_cascade.py',
    '_base_/datasets/coco_instance_ms_1568.py',
    '_base_/schedules/piip_3x.py',
    '_base_/default_runtime.py',
]
