#!/usr/bin/env bash
# Run a command on N ranks of this machine, one GPU each where there are GPUs:
#
#   launch/mpirun.sh 4 distsep run run.toml

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/env.sh"

if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then
    echo "usage: launch/mpirun.sh N COMMAND [ARGUMENT...]" >&2
    exit 2
fi
n=$1
shift
exec mpirun -n "$n" "$here/gpu-bind" "$@"
