# PIIP-LH6B 1536/1024/512 from DeiT III (L), MAE (H) and InternViT-6B weights: Mask R-CNN,
# COCO, 12 epochs, multi-scale training.
_base_ = [
    '_base_/models/piip_lh6b_maskrcnn.py',
    '_base_/datasets/coco_instance_ms_1536.py',
    '_base_/schedules/piip_1x_bs32.py',
    '_base_/default_runtime.py',
]
