#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# On a machine without a GPU, GPUS is the number of processes on the CPU.
# Environment: NNODES, NODE_RANK, PORT, MASTER_ADDR, PYTHON.
set -euo pipefail

CONFIG=${1:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]}
CHECKPOINT=${2:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]}
GPUS=${3:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]}
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --nproc_per_node="$GPUS" \
    --master_port="${PORT:-29500}" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
