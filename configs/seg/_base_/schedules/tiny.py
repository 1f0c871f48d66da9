# Training from scratch in float32 on a CPU: warm-up, then cosine decay. A different
# number of iterations has to be set in three places: train_cfg.max_iters, and end and
# T_max of the cosine.
max_iters = 1000

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        T_max=max_iters,
        eta_min_ratio=0.01,
    ),
]

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PIIPLayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
