#!/usr/bin/env bash
# Creates the virtual environment of this checkout; does nothing where it is up to date.
#
# Variables:
#   PYTHON           interpreter to start from                    (python3)
#   VENV             the environment                              (.venv)
#   TORCH_INDEX_URL  index that PyTorch and torchvision come from (pip's own)
#   MAX_JOBS         compilers at once                            (all cores)
#   PIIP_MM_CACHE    where the compiled mmcv is kept              (~/.cache/piip_mm)
#   FORCE_CUDA, TORCH_CUDA_ARCH_LIST are passed on to mmcv's build.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
CACHE=${PIIP_MM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/piip_mm}
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1
STAMP=$VENV/.piip_mm

wanted=$(cat requirements/*.txt setup.py tools/setup_env.sh | cksum)" ${TORCH_INDEX_URL:-}"
if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

fail() { echo "error: $*" >&2; exit 1; }
step() { echo "== $*"; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "$PYTHON is not Python 3.10 or newer; set PYTHON to one that is"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$PYTHON has no venv module (Debian, Ubuntu: apt install python3-venv)"

[ -x "$VENV/bin/python" ] || { step "creating $VENV"; "$PYTHON" -m venv "$VENV"; }
pip() { "$VENV/bin/python" -m pip install "$@"; }

step 'installing PyTorch (CPU build about 1 GB on disk, CUDA build about 7 GB)'
pip -r requirements/torch.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
pip --quiet -r requirements/build.txt

# A wheel fits one Python, one PyTorch build and one set of GPU architectures.
key=$("$VENV/bin/python" -W ignore -c '
import os, re, sys, torch
cuda = torch.version.cuda and (torch.cuda.is_available() or os.getenv("FORCE_CUDA") == "1")
kind = "cuda-" + os.getenv("TORCH_CUDA_ARCH_LIST", "native") if cuda else "cpu"
python = f"py{sys.version_info.major}{sys.version_info.minor}"
print(re.sub(r"[^\w.+-]", "_", f"{python}-torch{torch.__version__}-{kind}"))')
mmcv=$(sed 's/==/-/' requirements/mmcv.txt)
wheels=$CACHE/wheels/$key
if ! ls "$wheels/$mmcv"-*.whl >/dev/null 2>&1; then
    command -v g++ >/dev/null ||
        fail 'mmcv has to be compiled and there is no g++ (Debian, Ubuntu: apt install g++)'
    headers=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] ||
        fail "mmcv has to be compiled and $headers/Python.h is missing (Debian, Ubuntu: apt install python3-dev)"
    mkdir -p "$CACHE/wheels"
    build=$(mktemp -d "$CACHE/wheels/.build.XXXXXX")
    trap 'rm -rf "$build"' EXIT
    log=$CACHE/mmcv_build.log
    step "compiling mmcv's operators, once for $key (7 to 11 minutes on two cores)"
    echo "   log: $log"
    MMCV_WITH_OPS=1 "$VENV/bin/python" -m pip wheel --verbose --no-build-isolation \
        --no-deps --wheel-dir "$build" -r requirements/mmcv.txt >"$log" 2>&1 &
    compiler=$!
    trap 'kill $compiler 2>/dev/null || true; rm -rf "$build"' EXIT
    shown=
    while kill -0 $compiler 2>/dev/null; do
        sleep 5
        count=$(grep -ao '\[[0-9]*/[0-9]*\]' "$log" | tail -n 1 || true)
        if [ -t 1 ]; then
            printf '\r   %s files, %d s ' "${count:-...}" "$SECONDS"
        elif [ "$count" != "$shown" ] && [ $((SECONDS % 30)) -lt 5 ]; then
            echo "   $count files, $SECONDS s"
            shown=$count
        fi
    done
    [ ! -t 1 ] || echo
    wait $compiler || { tail -n 30 "$log" >&2; fail "compiling mmcv failed, see $log"; }
    # Moved at the end: an interrupted build leaves nothing that looks finished.
    mkdir -p "$wheels"
    mv "$build"/*.whl "$wheels/"
fi

step 'installing the OpenMMLab packages'
pip --quiet -c requirements/constraints.txt "$wheels/$mmcv"-*.whl -r requirements/stack.txt
pip --quiet --no-deps -r requirements/no_deps.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
pip --quiet -r requirements/dev.txt
pip --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >"$STAMP"
step "$VENV is ready"
