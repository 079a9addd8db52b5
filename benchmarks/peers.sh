#!/usr/bin/env bash
# Install the packages that distsep is measured against, in an environment of their own:
#
#   benchmarks/peers.sh                                    furax, from the package index
#   FGBUSTER=/path/to/fgbuster CMBDB=/path/to/cmbdb benchmarks/peers.sh    fgbuster too
#
# fgbuster 2 is not in the index, nor is cmbdb, which it imports: clone both first. Python
# 3.12 or later is needed: name it with PYTHON=... if `python3` is older. What cannot be
# installed is left out; the benchmarks then say so.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
env=$here/.venv-peers

[ -x "$env/bin/python" ] || "${PYTHON:-python3}" -m venv "$env"
pip() { "$env/bin/python" -m pip --disable-pip-version-check -q "$@"; }

pip install tensorstore || true  # a reader of zarr, for end_to_end.py
pip install "furax==0.17.*" || echo "peers: furax 0.17 could not be installed" >&2
if [ -n "${FGBUSTER:-}" ] && [ -n "${CMBDB:-}" ]; then
    # `six` and matplotlib are imported but not declared there.
    pip install six matplotlib astropy corner healpy numdifftools pandas pysm3 scipy \
        sympy tqdm &&
        pip install --no-deps "git+file://$(realpath "$CMBDB")" \
            "git+file://$(realpath "$FGBUSTER")" ||
        echo "peers: fgbuster could not be installed" >&2
fi

for name in furax fgbuster; do
    "$env/bin/python" -c "import $name" 2>/dev/null && echo "peers: $name is ready" ||
        echo "peers: $name is not there"
done
