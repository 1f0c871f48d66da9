# PIIP-SBL 1568/1120/672 from DeiT III weights: Cascade Mask R-CNN, COCO, 12 epochs. The
# paper reports it, but its configuration was not published. Ours are: the sizes, the
# head (see _base_/models/cascade.py) and the rest, which is that of Mask R-CNN.
_base_ = [
    '_base_/models/piip_sbl_cascade.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]
