// A GPU for tests: one thread block at a time, each of its threads a thread of the host.
//
// What CUDA gives a kernel and the kernels of distsep use, no more. A product of tensor
// cores is what the 32 threads of a warp make of each other's numbers.
#pragma once

#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)

struct Index {
  unsigned x;
};
inline thread_local Index threadIdx;
inline Index blockIdx;

using std::max, std::min, std::sqrt;

namespace emulated {

struct Warp {
  std::barrier<> meet{32};
  double a[32], b[32];
};
inline std::unique_ptr<std::barrier<>> all;
inline std::vector<Warp>* warps;

// c (8, 8) += a (8, 4) b (4, 8), as PTX lays mma.m8n8k4 of float64 out over a warp.
inline void multiply(double (&c)[2], double a, double b) {
  Warp& warp = (*warps)[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  warp.a[lane] = a, warp.b[lane] = b;
  warp.meet.arrive_and_wait();
  for (int e = 0; e < 2; ++e)
    for (int k = 0; k < 4; ++k)
      c[e] += warp.a[lane / 4 * 4 + k] * warp.b[4 * (2 * (lane % 4) + e) + k];
  warp.meet.arrive_and_wait();
}

// Two products on top of each other, of two halves of b (8, 8).
inline void multiply(double (&c)[2], double (&d)[2], const double (&a)[2],
                     const double (&b)[2], double x, double y) {
  multiply(c, a[0], x), multiply(d, b[0], x);
  multiply(c, a[1], y), multiply(d, b[1], y);
}

inline int thread() { return threadIdx.x; }

inline double roughly_over(double x) { return 1 / static_cast<float>(x); }

template <typename Real>
void read_again(const Real* from, Real& a, Real& b) {
  a = from[0], b = from[1];
}

constexpr int SHARED = 1 << 17;  // bytes

template <typename Space>
Space& shared() {
  alignas(16) static unsigned char space[SHARED];  // of one thread block at a time
  static_assert(sizeof(Space) <= SHARED);
  return *reinterpret_cast<Space*>(space);
}

// Run a kernel: `blocks` blocks of `threads` threads.
template <typename Kernel>
void launch(unsigned blocks, unsigned threads, Kernel kernel) {
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    std::vector<Warp> own(threads / 32);
    warps = &own;
    all = std::make_unique<std::barrier<>>(threads);
    std::vector<std::jthread> every;
    for (unsigned i = 0; i < threads; ++i)
      every.emplace_back([=] {
        threadIdx.x = i;
        kernel();
      });
  }
}

}  // namespace emulated

inline void __syncthreads() { emulated::all->arrive_and_wait(); }
inline void __syncwarp() {
  (*emulated::warps)[threadIdx.x / 32].meet.arrive_and_wait();
}
