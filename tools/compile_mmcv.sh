# Compiles mmcv's operators for the PyTorch of the environment, or finds them in the cache,
# and installs mmcv. Part of setup_env.sh, which sources this file.

mmcv=$(sed 's/==/-/' requirements/mmcv.txt)
CACHE=${PIIP_MM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/piip_mm}

check_compiler() {
    local needs="to compile mmcv" headers tool
    for tool in g++ flock; do
        command -v $tool >/dev/null || fail \
            "there is no $tool $needs (Debian, Ubuntu: apt install g++ util-linux);" \
            'without MMCV=compiled, nothing has to be compiled'
    done
    headers=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] || fail \
        "there is no $headers/Python.h $needs (Debian, Ubuntu: apt install python3-dev);" \
        'without MMCV=compiled, nothing has to be compiled'
}

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

# Both have the same files.
pip uninstall --quiet --yes mmcv-lite 2>/dev/null || true
pip install --quiet "${constraints[@]}" -r requirements/build.txt ninja packaging psutil

have_wheel() { compgen -G "$wheels/$mmcv-*.whl" >/dev/null; }
if ! have_wheel; then
    check_compiler
    mkdir -p "$CACHE/build"
    exec 9>"$CACHE/build/$key.lock"
    flock --nonblock 9 || { step 'waiting for another compilation of mmcv'; flock 9; }
    have_wheel || compile_mmcv
    exec 9>&-
fi

if [ "$(cat "$VENV/.piip_mm_mmcv" 2>/dev/null)" != "$key" ]; then
    # Forced, because the version is the same for every PyTorch.
    pip install --quiet --no-deps --force-reinstall "$wheels/$mmcv"-*.whl
    echo "$key" >"$VENV/.piip_mm_mmcv"
fi
