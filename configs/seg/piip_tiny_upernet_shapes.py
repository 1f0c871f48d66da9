# The example: a small PIIP trained from scratch on generated shapes, in minutes on a CPU.
_base_ = [
    '_base_/models/piip_tiny.py',
    '_base_/datasets/shapes_semantic.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(decode_head=dict(num_classes=4), auxiliary_head=dict(num_classes=4))
