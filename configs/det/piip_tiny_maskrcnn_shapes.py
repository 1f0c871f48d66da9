# The example: a small PIIP trained from scratch on generated shapes, in minutes on a CPU.
_base_ = [
    '_base_/models/piip_tiny.py',
    '_base_/datasets/shapes_instance.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)))
