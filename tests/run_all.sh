#!/usr/bin/env bash
# Runs the checks, the tests that load no backend once, then the others once a backend.
# A failing part does not keep the others from running; the exit status says whether all passed.
#
#   BIN=.venv/bin BACKENDS="jax torch" WORKERS=2 bash tests/run_all.sh quick|all [pytest arguments]
#
# quick: without the slow tests; those marked `once`, whose subject is no backend, on PyTorch alone, where nothing is compiled
# (where it is not among the backends, on the first); and XLA compiles without optimizing the machine code, which takes a third
# off what tests on JAX and TensorFlow cost. all: every test on every backend, compiled as for users.
#
# WORKERS: test processes side by side. Most of a test's time is compiling on one core.
# A file stays in one of them, for its fixtures' sake; by file, as pytest-xdist 3.8 forms no groups under pytest 9.2.
set -u

bin=${BIN:-.venv/bin}
backends=${BACKENDS:-jax tensorflow torch}
how=${1:?quick or all}
shift
failed=()
workers=${WORKERS:-2}

# One: more threads than the small models can use only wait for each other, and a fixed number keeps rounding the same.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}

part() {
    local name=$1 started=$SECONDS
    shift
    echo
    echo "=== $name"
    if "$@"; then
        echo "=== $name: passed in $((SECONDS - started)) s"
    else
        echo "=== $name: FAILED after $((SECONDS - started)) s"
        failed+=("$name")
    fi
}

once=${backends%% *}
[[ " $backends " != *" torch "* ]] || once=torch
[ "$how" = all ] || export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=0"

pytest_with() {
    local backend=$1 selection=$2 status
    shift 2
    [ "$how" = all ] || selection+=" and not slow"
    [ "$how" = all ] || [ "$backend" = "$once" ] || selection+=" and not once"
    KERAS_BACKEND=$backend "$bin/python" -m pytest -q -n "$workers" --dist loadfile --durations=10 -m "$selection" "$@"
    status=$?
    # 5: no test was selected, e.g. when PYTEST_ARGS names a file without a backend.
    [ "$status" -eq 0 ] || { [ "$status" -eq 5 ] && [ $# -gt 0 ]; }
}

part "formatting" "$bin/ruff" format --check .
part "lint" "$bin/ruff" check .
part "types" "$bin/mypy"
part "tests without a backend" pytest_with "${backends%% *}" "no_backend" "$@"
for backend in $backends; do
    part "tests on $backend" pytest_with "$backend" "not no_backend" "$@"
done

echo
if [ ${#failed[@]} -gt 0 ]; then
    printf 'Failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "All parts passed."
