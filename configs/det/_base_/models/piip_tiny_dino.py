# A small DINO for training from scratch in minutes on a CPU: a ConvNeXt and two ViT
# branches with a regular pyramid; fewer levels, layers, sampling points and queries. The
# width stays 256, the only one that the encoding of reference points in mmdet's decoder
# supports.
_base_ = 'piip_dino.py'

num_levels = 3
ffn_cfg = dict(feedforward_channels=256)

model = dict(
    num_queries=30,
    num_feature_levels=num_levels,
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        branches=[
            dict(
                type='PIIPConvNeXt',
                arch=dict(depths=(1, 2, 2, 1), dims=(32, 64, 96, 128)),
                img_size=224,
                # The usual 1e-6 suits deeper networks.
                layer_scale_init_value=1.0,
            ),
            *(
                dict(
                    type='PIIPViT',
                    arch=dict(embed_dims=dims, num_layers=3, num_heads=4),
                    img_size=size,
                    pretrain_img_size=size,
                    patch_size=8,
                )
                for dims, size in ((64, 168), (96, 112))
            ),
        ],
        interaction=dict(num_heads=8, drop_path_rate=0.0),
        num_interactions=3,
        # The groups end with the stages of stride 8, 16 and 32 of the ConvNeXt.
        interaction_ends=[[3, 6, 8], [0, 1, 2], [0, 1, 2]],
        # Few positions per object, so that 30 queries soon learn to divide the objects
        # among themselves.
        out_strides=(16, 32),
        out_interactions=(1,),
    ),
    neck=dict(in_channels=[96] * 2, num_outs=num_levels),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=num_levels, num_points=2), ffn_cfg=ffn_cfg
        ),
    ),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels), ffn_cfg=ffn_cfg),
    ),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=50)),
    test_cfg=dict(max_per_img=30),
)
