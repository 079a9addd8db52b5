// The kernels for GPUs, run by the threads of the host.
#include <array>

#include "emulated_gpu.hpp"

#include "gpu_root.cuh"

namespace {

template <int N, typename Real>
void run(const Real* d, const Real* t, const int* sizes, double* to) {
  const auto [nblock, nrow, ntemplate, ntile, nlane] =
      std::array{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  const distsep::gpu::Samples<Real> x{d, t, nrow, ntemplate, ntile, nlane};
  emulated::launch(nblock * ntile, distsep::gpu::THREADS,
                   [=] { distsep::gpu::roots<N, Real>(x, to); });
}

}  // namespace

extern "C" void roots64(const double* d, const double* t, const int* sizes, double* to) {
  sizes[1] + sizes[2] <= 16 ? run<16>(d, t, sizes, to) : run<32>(d, t, sizes, to);
}

extern "C" void roots32(const float* d, const float* t, const int* sizes, double* to) {
  sizes[1] + sizes[2] <= 16 ? run<16>(d, t, sizes, to) : run<32>(d, t, sizes, to);
}
