# PIIP-H6B 1024/512 from MAE (H) and InternViT-6B weights: Mask R-CNN, COCO, 12 epochs,
# multi-scale training.
_base_ = [
    '_base_/models/piip_h6b_maskrcnn.py',
    '_base_/datasets/coco_instance_ms_1024.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]
