# PIIP-TSB 1568/1120/672 from DeiT (T) and DeiT III weights: Cascade Mask R-CNN, COCO, 36
# epochs, many scales. The paper reports it, but its configuration was not published. Ours
# are: the sizes, the head (see _base_/models/cascade.py), the scales and the rest of the
# optimizer, which is that of Mask R-CNN; 3x with many scales is the paper's.
_base_ = [
    '_base_/models/piip_tsb_cascade.py',
    '_base_/datasets/coco_instance_ms_1568.py',
    '_base_/schedules/piip_3x.py',
    '_base_/default_runtime.py',
]
