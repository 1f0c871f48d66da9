# PIIP-SBL 1568/1120/672 from DeiT III weights: Cascade Mask R-CNN, COCO, 12 epochs. The
# paper reports its results, but the configuration was not published. The sizes, the head
# (see _base_/models/cascade.py) and everything else, which is as for Mask R-CNN, are our
# choice.
_base_ = [
    '_base_/models/piip_sbl_cascade.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]
