# The interactions of the published PIIP models. Configs that inherit from it add the
# branches.
piip = dict(
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
    out_strides=(4, 8, 16, 32),
)
