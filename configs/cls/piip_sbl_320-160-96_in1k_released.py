# PIIP-SBL 320/160/96 as released: the first patch token of every branch is classified
# instead of its class token, and the interactions after the last blocks are built.
_base_ = 'piip_sbl_320-160-96_in1k.py'

model = dict(backbone=dict(out_type='maps'), head=dict(token='first_patch'))
