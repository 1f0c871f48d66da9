#!/usr/bin/env bash
# Measures on a GPU, in one call: first the CUDA operators against their PyTorch twins, then
# the sampling core alone, then the times of docs/benchmarks.md, the most important ones
# first. Every result is written as soon as it is there. What does not fit into BUDGET
# seconds (480) is skipped.
#
# usage: benchmark_gpu.sh OUT [WHEELS]
#   OUT     folder of the results
#   WHEELS  folder of wheels to install first, for a machine without a network that has
#           PyTorch and timm
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:?usage: $0 OUT [WHEELS]}
WHEELS=${2:-}
PYTHON=${PYTHON:-python}
BUDGET=${BUDGET:-480}
mkdir -p "$OUT"

if [ -n "$WHEELS" ]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
fi

measure() { # tool, name, arguments of the tool
    local tool=$1 name=$2 left=$((BUDGET - SECONDS))
    shift 2
    if [ "$left" -lt 20 ]; then
        echo "== $name skipped: $SECONDS of $BUDGET s are over"
        return
    fi
    echo "== $name ($SECONDS s)"
    timeout $((left < 90 ? left : 90)) "$PYTHON" tools/analysis_tools/"$tool".py "$@" \
        --device cuda --out "$OUT/$name.json" 2>"$OUT/$name.err" | tee "$OUT/$name.txt" ||
        { echo "failed: see $OUT/$name.err"; tail -n 5 "$OUT/$name.err"; }
}

run() { # name, arguments of the benchmark
    measure benchmark "$@"
}

det=configs/det
tsb=$det/piip_tsb_maskrcnn_1x_1120-896-448.py
sbl=$det/piip_sbl_maskrcnn_1x_1568-896-672.py
full=$det/piip_sbl_maskrcnn_1x.py

echo '== operators'
timeout 150 "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda \
    --continue-on-collection-errors 2>&1 | tee "$OUT/tests.txt" | tail -n 15 || true

measure benchmark_sampling tsb_sampling $tsb --dtype fp32 bf16
measure benchmark_sampling sbl_sampling $sbl --dtype fp32 bf16
run tsb_forward $tsb --plain --fuse --dtype fp32 bf16 --batch-size 1 8
run tsb_deformops $tsb --backend deformops --dtype bf16 --batch-size 1 8
run sbl_deformops $sbl --backend deformops --dtype bf16 --batch-size 1 8
run sbl_forward $sbl --plain --fuse --dtype bf16 --batch-size 1 8
run tsb_training $tsb --plain --mode training --dtype bf16 --batch-size 2
run sbl_training $sbl --plain --mode training --dtype bf16 --batch-size 2
run tsb_compiled $tsb --compile --dtype bf16
run tsb_cuda_graphs $tsb --compile reduce-overhead --dtype bf16
run tsb_vit_b $tsb --vs $det/vit_b_maskrcnn_1x.py --dtype bf16 --batch-size 1 8
run sbl_vit_l $sbl --vs $det/vit_l_maskrcnn_1x.py --dtype bf16 --batch-size 1 8
run memory $full --mode training --dtype bf16 --batch-size 2 --repeats 3
run memory_cp $full --mode training --dtype bf16 --batch-size 2 --repeats 3 --cfg-options \
    model.backbone.branches.0.with_cp=True model.backbone.branches.1.with_cp=True \
    model.backbone.branches.2.with_cp=True model.backbone.interaction.with_cp=True
echo "== done in $SECONDS s"
