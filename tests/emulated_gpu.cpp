// The kernels for GPUs, run by the threads of the host.
#include <array>

#include "emulated_gpu.hpp"

#include "gpu_root.cuh"
#include "gpu_value_gradient.cuh"

namespace gpu = distsep::gpu;

namespace {

template <int N, typename Real>
void roots(const Real* d, const Real* t, const int* sizes, double* to) {
  const auto [nblock, nrow, ntemplate, ntile, nlane] =
      std::array{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  const gpu::Samples<Real> x{d, t, nrow, ntemplate, ntile, nlane};
  emulated::launch(nblock * ntile, gpu::THREADS, [=] { gpu::roots<N, Real>(x, to); });
}

template <int C, bool WHITE, typename Real>
void sums(const gpu::Weighted<Real>& p, int nblock, double* to) {
  emulated::launch(nblock * p.ntile * p.nshare, gpu::WARP,
                   [=] { gpu::value_gradients<16, C, WHITE, Real>(p, to); });
}

template <int C, typename Real>
void sums(const gpu::Weighted<Real>& p, int nblock, double* to) {
  p.w ? sums<C, false>(p, nblock, to) : sums<C, true>(p, nblock, to);
}

// arrays: d, w, t, A, Rinv, dA, phi, alpha. numbers: block, comp, row, template, tile,
// lane, share, entry, global, kind, column; then kind and column of each entry; templates.
template <typename Real>
void value_gradients(const Real* const* arrays, const int* pool, const int* numbers,
                     double* to) {
  const int *n = numbers, *place = n + 11, *use = place + 2 * n[7];
  gpu::Weighted<Real> p{arrays[0], arrays[1], arrays[2], pool, arrays[3], arrays[4],
                        arrays[5], arrays[6], arrays[7], n[5], n[2],      n[3],
                        n[4],      n[6],      n[7],      n[8], n[9],      n[10],
                        {},        {},        {}};
  for (int e = 0; e < n[7]; ++e) p.kind[e] = place[2 * e], p.column[e] = place[2 * e + 1];
  for (int g = 0; g < n[8]; ++g) p.use[g] = use[g];
  if (n[1] == 1) sums<1>(p, n[0], to);
  if (n[1] == 2) sums<2>(p, n[0], to);
  if (n[1] == 3) sums<3>(p, n[0], to);
  if (n[1] == 6) sums<6>(p, n[0], to);
}

}  // namespace

extern "C" void roots64(const double* d, const double* t, const int* sizes, double* to) {
  sizes[1] + sizes[2] <= 16 ? roots<16>(d, t, sizes, to) : roots<32>(d, t, sizes, to);
}

extern "C" void roots32(const float* d, const float* t, const int* sizes, double* to) {
  sizes[1] + sizes[2] <= 16 ? roots<16>(d, t, sizes, to) : roots<32>(d, t, sizes, to);
}

extern "C" void sums64(const double* const* arrays, const int* pool, const int* numbers,
                       double* to) {
  value_gradients(arrays, pool, numbers, to);
}

extern "C" void sums32(const float* const* arrays, const int* pool, const int* numbers,
                       double* to) {
  value_gradients(arrays, pool, numbers, to);
}
