# The environment of the scripts in this folder: source it, do not run it.
#   $root  the repository       $env  the Python environment in use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# An activated conda environment made from environment.yml is used as it is.
if [ "${CONDA_DEFAULT_ENV:-}" = distsep ]; then
    env=$CONDA_PREFIX
else
    env=${DISTSEP_ENV:-$root/.venv}
fi
export PATH="$env/bin:$PATH"

# One thread per rank for what is not JAX; compiled programs are kept between calls.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$env/cache/jax}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# mpi4jax asks whether MPI reads the memory of GPUs; if it does, set 1.
export MPI4JAX_USE_CUDA_MPI=${MPI4JAX_USE_CUDA_MPI:-0}

# Open MPI asks for these where there are fewer cores than ranks, or only root.
export OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
