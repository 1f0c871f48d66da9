# A PIIP classifier: every branch has its own class token and linear layer, and the logits
# are averaged. Configs that inherit from it add backbone.branches with
# with_cls_token=True and set head.in_channels to the widths of the branches.
num_classes = 1000

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=num_classes,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='PIIP',
        interaction=dict(
            attn='deform',
            num_heads=16,
            num_points=4,
            value_ratio=0.5,
            ffn_ratio=0.25,
            drop_path_rate=0.4,
            direction='neighbours',
        ),
        num_interactions=12,
        out_type='cls_tokens',
    ),
    head=dict(
        type='PIIPSeparateHead',
        num_classes=num_classes,
        token='cls',
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    # Each batch uses one of the two, chosen at random.
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
)
