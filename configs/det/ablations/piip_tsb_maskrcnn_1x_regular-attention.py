# PIIP-TSB 1120/896/448 with regular instead of deformable attention between branches.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

model = dict(
    backbone=dict(
        interaction=dict(
            _delete_=True,
            attn='regular',
            num_heads=16,
            ffn_ratio=0.25,
            drop_path_rate=0.4,
            direction='neighbours',
        )
    )
)
