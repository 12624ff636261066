#!/usr/bin/env bash
# Tests that compare computed numbers, as another machine would run them: NumPy, OpenBLAS and the C
# library take their code for the oldest CPU of x86-64-v2, whatever this one can do. Arguments are
# pytest's; without any, all tests that compare computed numbers are run.
set -euo pipefail
cd "$(dirname "$0")/.."
beyond="$(uv run python - <<'PYTHON'
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

print(*(name for name in __cpu_dispatch__ if __cpu_features__[name]))
PYTHON
)"
export NPY_DISABLE_CPU_FEATURES="$beyond"
export OPENBLAS_CORETYPE=Nehalem
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F
echo "without ${beyond:-nothing: NumPy uses only its baseline here}, OpenBLAS for ${OPENBLAS_CORETYPE}"
if [ $# -eq 0 ]; then
    set -- -n 2 tests/contract tests/walks/test_readme.py tests/model_export/test_*.py tests/model_export/{bundle,convert,prove,registry,study} \
        tests/loadlab/test_{bench,compare,kept,latency,picture,report,baselines,rules,search,stats,studies,verdict}.py \
        tests/server/test_bundle.py tests/server/challenger tests/server/pipeline/test_{decode,encode}.py
fi
exec uv run pytest "$@"
