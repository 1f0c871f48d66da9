#!/usr/bin/env bash
# Creates the virtual environment of this checkout; does nothing if it is up to date.
#
# Variables (the last three are remembered once an environment has been created):
#   PYTHON                interpreter to start from                     (python3)
#   VENV                  the environment                               (.venv)
#   MAX_JOBS              compilers at once         (by number of cores and memory)
#   PIIP_MM_CACHE         cache of the compiled mmcv             (~/.cache/piip_mm)
#   TORCH_INDEX_URL       index PyTorch and torchvision come from       (pip's own)
#   FORCE_CUDA=1          compile mmcv's CUDA operators without a visible GPU
#   TORCH_CUDA_ARCH_LIST  GPU architectures to compile for     (the visible GPU's)
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
CACHE=${PIIP_MM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/piip_mm}
STAMP=$VENV/.piip_mm
SETTINGS=$VENV/.piip_mm_settings
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() { echo "error: $*" >&2; exit 1; }
step() { echo "== $*"; }
pip() { "$VENV/bin/python" -m pip "$@"; }

# Later runs use the settings that the environment was created with.
if [ -f "$SETTINGS" ]; then
    for name in TORCH_INDEX_URL FORCE_CUDA TORCH_CUDA_ARCH_LIST; do
        made_with=$(sed -n "s/^$name=//p" "$SETTINGS")
        [ -z "${!name:-}" ] || [ "${!name}" = "$made_with" ] || fail \
            "$VENV was made with $name='$made_with', now it is '${!name}';" \
            "unset it, remove $VENV or choose another one with VENV"
        [ -z "$made_with" ] || export "$name=$made_with"
    done
fi

wanted=$(cat requirements/*.txt setup.py tools/setup_env.sh | cksum)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON; set PYTHON to an interpreter"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || fail \
    "$PYTHON ($("$PYTHON" --version 2>&1)) is not Python 3.10 or newer;" \
    'set PYTHON to one that is, e.g. make env PYTHON=python3.12'
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$PYTHON has no venv module (Debian, Ubuntu: apt install python3-venv)"

# Checked before the long downloads, unless a cached wheel may fit.
python_tag=$("$PYTHON" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
mmcv=$(sed 's/==/-/' requirements/mmcv.txt)
check_compiler() {
    local needs="mmcv has to be compiled and" headers tool
    for tool in g++ flock; do
        command -v $tool >/dev/null || fail \
            "$needs there is no $tool (Debian, Ubuntu: apt install g++ util-linux)"
    done
    headers=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] || fail \
        "$needs $headers/Python.h is missing (Debian, Ubuntu: apt install python3-dev)"
}
compgen -G "$CACHE/wheels/$python_tag-*/$mmcv-*.whl" >/dev/null || check_compiler

if ! pip --version >/dev/null 2>&1; then
    step "creating $VENV"
    "$PYTHON" -m venv "$VENV"
fi
if [ ! -f "$SETTINGS" ]; then
    printf '%s=%s\n' TORCH_INDEX_URL "${TORCH_INDEX_URL:-}" FORCE_CUDA "${FORCE_CUDA:-}" \
        TORCH_CUDA_ARCH_LIST "${TORCH_CUDA_ARCH_LIST:-}" >"$SETTINGS"
fi
torch_index=(${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"})
constraints=(--constraint requirements/constraints.txt)
if [ "$python_tag" = py310 ]; then
    echo '   Python 3.10: pip chooses what requirements/constraints.txt pins for newer ones'
    constraints=()
fi

step 'installing PyTorch (the CUDA build is several GB)'
pip install -r requirements/torch.txt "${torch_index[@]}"
pip install --quiet -r requirements/build.txt "${constraints[@]}"

# A wheel fits one Python, one PyTorch build and one set of GPU architectures.
key=$("$VENV/bin/python" -W ignore -c '
import os, re, sys, torch
kind = "cpu"
if torch.cuda.is_available() or os.getenv("FORCE_CUDA") == "1":
    visible = torch.cuda.is_available() and torch.cuda.get_device_capability()
    visible = "{}.{}".format(*visible) if visible else "default"
    kind = "cuda-" + (os.getenv("TORCH_CUDA_ARCH_LIST") or visible)
print(re.sub(r"[^\w.+-]", "_", f"{sys.argv[1]}-torch{torch.__version__}-{kind}"))
' "$python_tag")
wheels=$CACHE/wheels/$key

# Compiles in a folder that survives an interruption, so that the next run continues there.
# It contains the sources, because pip caches the wheels of named packages without
# distinguishing between PyTorch versions.
compile_mmcv() {
    local build=$CACHE/build/$key log=$CACHE/build/$key.log
    local compiler started=$SECONDS shown=0 count
    if [[ $key == *-cuda-* ]]; then
        "$VENV/bin/python" -W ignore -c \
            'import sys, torch.utils.cpp_extension as c; sys.exit(c.CUDA_HOME is None)' ||
            fail "mmcv's CUDA operators have to be compiled and there is no nvcc: install" \
                'the CUDA toolkit (or set CUDA_HOME), or take the CPU build of PyTorch:' \
                "rm -rf $VENV; make env TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"
    fi
    if [ ! -d "$build/$mmcv" ]; then
        rm -rf "$build"
        pip download --quiet --no-deps --no-build-isolation --no-binary mmcv \
            --dest "$build" -r requirements/mmcv.txt
        mkdir "$build/unpacked"
        tar -xzf "$build/$mmcv.tar.gz" -C "$build/unpacked"
        mv "$build/unpacked/$mmcv" "$build/$mmcv"
    fi
    if [ -z "${MAX_JOBS:-}" ]; then
        # 2 GB for every compiler.
        MAX_JOBS=$(awk -v cores="$(nproc)" '/^MemAvailable/ { jobs = int($2 / 2e6) }
            END { print jobs < 1 ? 1 : jobs < cores ? jobs : cores }' /proc/meminfo)
    fi
    export MAX_JOBS
    step "compiling mmcv's operators once, for $key (7 to 11 minutes on two cores)"
    echo "   $MAX_JOBS at once; log: $log"
    set -m # its own process group, so that all of it can be stopped
    MMCV_WITH_OPS=1 pip wheel --verbose --no-build-isolation --no-deps \
        --wheel-dir "$build/wheel" "$build/$mmcv" >"$log" 2>&1 </dev/null &
    compiler=$!
    set +m
    # shellcheck disable=SC2064 # the number of now
    trap "kill -- -$compiler 2>/dev/null || true" EXIT
    while kill -0 "$compiler" 2>/dev/null; do
        sleep 2
        count=$(grep -ao '\[[0-9]*/[0-9]*\]' "$log" | tail -n 1 || true)
        if [ -t 1 ]; then
            printf '\r   %s files, %d s ' "${count:-...}" $((SECONDS - started))
        elif [ $((SECONDS - shown)) -ge 30 ]; then
            echo "   ${count:-...} files, $((SECONDS - started)) s"
            shown=$SECONDS
        fi
    done
    [ ! -t 1 ] || echo
    wait "$compiler" || {
        # The end of the log is pip's tidying up.
        grep -aE -m 15 '[Ee]rror\b|FAILED' "$log" >&2 || tail -n 15 "$log" >&2
        fail "compiling mmcv failed; the whole log: $log"
    }
    trap - EXIT
    # Moved at the end: an interrupted build leaves nothing that looks finished.
    mkdir -p "$wheels"
    mv "$build/wheel/$mmcv"-*.whl "$wheels/"
    rm -rf "$build"
}

have_wheel() { compgen -G "$wheels/$mmcv-*.whl" >/dev/null; }
if ! have_wheel; then
    check_compiler
    mkdir -p "$CACHE/build"
    exec 9>"$CACHE/build/$key.lock"
    flock --nonblock 9 || { step 'waiting for another compilation of mmcv'; flock 9; }
    have_wheel || compile_mmcv
    exec 9>&-
fi

step 'installing the OpenMMLab packages'
if [ "$(cat "$VENV/.piip_mm_mmcv" 2>/dev/null)" != "$key" ]; then
    # Forced, because the version is the same for every PyTorch.
    pip install --quiet --no-deps --force-reinstall "$wheels/$mmcv"-*.whl
    echo "$key" >"$VENV/.piip_mm_mmcv"
fi
pip install --quiet "${constraints[@]}" -r requirements/mmcv.txt -r requirements/stack.txt
pip install --quiet --no-deps -r requirements/torchvision.txt "${torch_index[@]}"
pip install --quiet --no-deps -r requirements/timm.txt
pip install --quiet -r requirements/dev.txt
pip install --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >"$STAMP"
step "$VENV is ready"
