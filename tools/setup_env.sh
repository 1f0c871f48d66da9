#!/usr/bin/env bash
# Creates the virtual environment of this checkout; does nothing if it is up to date.
#
# Variables (the last four are remembered once an environment has been created):
#   PYTHON                interpreter to start from                     (python3)
#   VENV                  the environment                               (.venv)
#   MAX_JOBS              compilers at once         (by number of cores and memory)
#   PIIP_MM_CACHE         cache of the compiled mmcv             (~/.cache/piip_mm)
#   TORCH_INDEX_URL       index PyTorch and torchvision come from       (pip's own)
#   MMCV                  lite: nothing is compiled, or compiled             (lite)
#   FORCE_CUDA=1          compile mmcv's CUDA operators without a visible GPU
#   TORCH_CUDA_ARCH_LIST  GPU architectures to compile for     (the visible GPU's)
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
STAMP=$VENV/.piip_mm
SETTINGS=$VENV/.piip_mm_settings
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() { echo "error: $*" >&2; exit 1; }
pip() { "$VENV/bin/python" -m pip "$@"; }
step() { printf '== %3d s  %s\n' "$SECONDS" "$*"; }

# Later runs use the settings that the environment was created with.
if [ -f "$SETTINGS" ]; then
    for name in TORCH_INDEX_URL MMCV FORCE_CUDA TORCH_CUDA_ARCH_LIST; do
        made_with=$(sed -n "s/^$name=//p" "$SETTINGS")
        [ -z "${!name:-}" ] || [ "${!name}" = "$made_with" ] || fail \
            "$VENV was made with $name='$made_with', now it is '${!name}';" \
            "unset it, remove $VENV or choose another one with VENV"
        [ -z "$made_with" ] || export "$name=$made_with"
    done
fi
cuda=${FORCE_CUDA:-}${TORCH_CUDA_ARCH_LIST:-}
MMCV=${MMCV:-${cuda:+compiled}}
MMCV=${MMCV:-lite}
[[ $MMCV = lite || $MMCV = compiled ]] || fail \
    "MMCV is '$MMCV'; set it to lite (nothing is compiled) or compiled"
[[ $MMCV = compiled || -z $cuda ]] || fail \
    'FORCE_CUDA and TORCH_CUDA_ARCH_LIST say how to compile mmcv, which MMCV=lite does' \
    'not do; unset them, or set MMCV=compiled'

wanted=$(cat requirements/*.txt setup.py tools/*.sh piip_mm/piip_mm.pth | cksum)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON; set PYTHON to an interpreter"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || fail \
    "$PYTHON ($("$PYTHON" --version 2>&1)) is not Python 3.10 or newer;" \
    'set PYTHON to one that is, e.g. make env PYTHON=python3.12'
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$PYTHON has no venv module (Debian, Ubuntu: apt install python3-venv)"
python_tag=$("$PYTHON" -c 'import sys; print("py%d%d" % sys.version_info[:2])')

if ! pip --version >/dev/null 2>&1; then
    step "creating $VENV"
    "$PYTHON" -m venv "$VENV"
fi
if [ ! -f "$SETTINGS" ]; then
    printf '%s=%s\n' TORCH_INDEX_URL "${TORCH_INDEX_URL:-}" MMCV "$MMCV" \
        FORCE_CUDA "${FORCE_CUDA:-}" TORCH_CUDA_ARCH_LIST "${TORCH_CUDA_ARCH_LIST:-}" \
        >"$SETTINGS"
fi
torch_index=(${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"})
constraints=(--constraint requirements/constraints.txt)
if [ "$python_tag" = py310 ]; then
    echo '   Python 3.10: pip chooses what requirements/constraints.txt pins for newer ones'
    constraints=()
fi

step 'installing PyTorch (the CUDA build is several GB)'
pip install --quiet -r requirements/torch.txt "${torch_index[@]}"
pip install --quiet --no-deps -r requirements/torchvision.txt "${torch_index[@]}"

if [ "$MMCV" = compiled ]; then
    . tools/compile_mmcv.sh
    mmcv_requirements=requirements/mmcv.txt
else
    mmcv_requirements=requirements/mmcv-lite.txt
    if [ -e "$VENV/.piip_mm_mmcv" ] || pip show --quiet mmcv 2>/dev/null; then
        # Both have the same files.
        pip uninstall --quiet --yes mmcv
        rm -f "$VENV/.piip_mm_mmcv"
    fi
fi

step 'installing the OpenMMLab packages'
pip install --quiet "${constraints[@]}" -r requirements/build.txt \
    -r "$mmcv_requirements" -r requirements/stack.txt -r requirements/dev.txt
pip install --quiet --no-deps -r requirements/timm.txt

step 'installing this package'
pip install --quiet --no-deps --no-build-isolation --editable .
cp piip_mm/piip_mm.pth "$("$VENV/bin/python" -c \
    'import sysconfig; print(sysconfig.get_path("purelib"))')"
echo "$wanted" >"$STAMP"
step "$VENV is ready"
