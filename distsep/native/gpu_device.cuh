// What kernels for GPUs ask of the device beyond CUDA C++: tensor cores, and memory that
// a thread block shares.
#pragma once

namespace distsep::gpu {

constexpr int WARP = 32;

// Lanes that a thread reads at once: 16 bytes at most.
template <typename Real, int COUNT = 16 / sizeof(Real)>
struct alignas(COUNT * sizeof(Real)) Some {
  static constexpr int LANES = COUNT;
  Real of[COUNT];
};

}  // namespace distsep::gpu

#ifdef __CUDACC__

namespace distsep::gpu {

// c (8, 8) += a (8, 4) b (4, 8): thread 4 g + t has a[g][t], b[t][g], c[g][2t, 2t + 1].
__device__ inline void multiply(double (&c)[2], double a, double b) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(c[0]), "+d"(c[1])
      : "d"(a), "d"(b));
}

// Two of them on top of each other, of b (8, 8) in two halves: at full speed on Hopper.
__device__ inline void multiply(double (&c)[2], double (&d)[2], const double (&a)[2],
                                const double (&b)[2], double x, double y) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+d"(c[0]), "+d"(c[1]), "+d"(d[0]), "+d"(d[1])
      : "d"(a[0]), "d"(b[0]), "d"(a[1]), "d"(b[1]), "d"(x), "d"(y));
#else
  multiply(c, a[0], x), multiply(d, b[0], x);
  multiply(c, a[1], y), multiply(d, b[1], y);
#endif
}

// Number of this thread, found anew each time: a compiler would keep all that follows from
// it in registers it has not.
__device__ inline int thread() {
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}

// 1 / x to twenty bits.
__device__ inline double roughly_over(double x) {
  double y;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(y) : "d"(x));
  return y;
}

// Two numbers of shared memory, read anew each time.
__device__ inline void read_again(const double* from, double& a, double& b) {
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ld.shared.v2.f64 {%0, %1}, [%2];" : "=d"(a), "=d"(b) : "r"(at));
}

__device__ inline void read_again(const float* from, float& a, float& b) {
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(a), "=f"(b) : "r"(at));
}

// The memory of a thread block, as many bytes as the kernel was started with.
template <typename Space>
__device__ Space& shared() {
  extern __shared__ __align__(16) unsigned char space[];
  return *reinterpret_cast<Space*>(space);
}

}  // namespace distsep::gpu

#else

namespace distsep::gpu {
using namespace emulated;  // in the tests
}

#endif
