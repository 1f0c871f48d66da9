# Cascade Mask R-CNN trained from scratch on generated shapes, in minutes on a CPU.
_base_ = [
    '_base_/models/piip_tiny_cascade.py',
    '_base_/datasets/shapes_instance.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(roi_head=dict(mask_head=dict(num_classes=3)))
_base_.model.roi_head.bbox_head[0].num_classes = 3
_base_.model.roi_head.bbox_head[1].num_classes = 3
_base_.model.roi_head.bbox_head[2].num_classes = 3
