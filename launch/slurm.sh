#!/usr/bin/env bash
# A Slurm job: submit from the repository, after ./launch/setup, with the options of
# your machine (account, partition, GPUs) on the command line:
#
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh \
#       distsep run run.toml
#
# Without GPUs, give each task its cores: --ntasks-per-node=8 --cpus-per-task=16.
#
#SBATCH --job-name=distsep
#SBATCH --time=01:00:00
#SBATCH --output=distsep-%j.out

set -euo pipefail
# Slurm runs a copy of this file: the repository is where the job was submitted.
root=${DISTSEP_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
if [ ! -f "$root/launch/env.sh" ]; then
    echo "slurm.sh: $root is not distsep's repository: submit from there, or set DISTSEP_ROOT" >&2
    exit 2
fi
if [ $# -eq 0 ]; then
    echo "slurm.sh: no command given, e.g. sbatch launch/slurm.sh distsep run run.toml" >&2
    exit 2
fi
source "$root/launch/env.sh"

# The protocol by which ranks find each other depends on the MPI that is installed.
# With the wrong one, srun starts lone processes (distsep refuses to run so).
if [ -z "${SLURM_MPI_TYPE:-}" ]; then
    vendor=$(python -c 'import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.get_vendor()[0])')
    case $vendor in
        "Open MPI") SLURM_MPI_TYPE=pmix ;;
        *) SLURM_MPI_TYPE=pmi2 ;;
    esac
fi

# The cores of a task are not handed on to srun by themselves.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

exec srun --mpi="$SLURM_MPI_TYPE" "$root/launch/gpu-bind" "$@"
