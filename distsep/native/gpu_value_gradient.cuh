// Value and gradient of every tile: a sample stays in the registers of one thread.
//
// A warp takes some lanes of one tile. Their data and variances are read once; the tables
// of the pool are in shared memory, the same numbers for all threads. The same sums as
// `block_value_gradient`.
#pragma once

#include "factor.hpp"
#include "gpu_device.cuh"

namespace distsep::gpu {

constexpr int MOST_SLOPES = 64;  // entries of dA, and global terms

// The samples of many blocks, and the tables of their pools.
template <typename Real>
struct Weighted {
  const Real *d, *w, *t;    // (block, row or template, lane); w null: whitened
  const int* pool;          // (block, tile)
  const Real *A, *Rinv;     // (pool, row, comp); whitened: Q and R^-1 of A = Q R
  const Real *dA;           // (pool, entry, row)
  const Real *phi, *alpha;  // (pool, global, row), (pool, global)
  long nlane;
  int nrow, ntemplate, ntile, nshare, nentry, nglobal, nkind, ncolumn;
  // Kind and column of each entry, comp then regional; template of each global term.
  signed char kind[MOST_SLOPES], column[MOST_SLOPES], use[MOST_SLOPES];

  __host__ __device__ int slopes() const { return nentry + nglobal; }
  __host__ __device__ int sums() const { return 1 + nkind + nglobal; }
};

// The memory of a warp.
template <int ROWS, int C, typename Real>
struct Tables {
  static constexpr int WIDE = C + C % 2;
  Real *A, *slope;  // (ROWS, WIDE), (entry, then global term; ROWS)
  Real *Rinv, *in;  // whitened: (C, C), and slope . A (entry, then global term; C)
  Real* alpha;      // (global)
  double* sum;      // (value, kind, then global term; thread)

  __device__ Tables(unsigned char* space, const Weighted<Real>& p) {
    sum = reinterpret_cast<double*>(space);
    A = reinterpret_cast<Real*>(sum + p.sums() * WARP);
    slope = A + ROWS * WIDE;
    Rinv = slope + ROWS * p.slopes();
    in = Rinv + C * C;
    alpha = in + C * p.slopes();
  }

  static long bytes(const Weighted<Real>& p) {
    return sizeof(double) * p.sums() * WARP +
           sizeof(Real) * (ROWS * WIDE + (ROWS + C) * p.slopes() + C * C + p.nglobal);
  }

  __device__ void fill(const Weighted<Real>& p, long pool) const {
    const int at = threadIdx.x, n = p.nrow, nglobal = p.nglobal;
    for (int k = at; k < p.sums() * WARP; k += WARP) sum[k] = 0.0;
    for (int k = at; k < ROWS * WIDE; k += WARP) {
      const int r = k / WIDE, c = k % WIDE;
      A[k] = r < n && c < C ? p.A[(pool * n + r) * C + c] : 0;
    }
    for (int k = at; k < ROWS * p.slopes(); k += WARP) {
      const int r = k % ROWS, e = k / ROWS, g = e - p.nentry;
      slope[k] = r >= n  ? 0
                 : g < 0 ? p.dA[(pool * p.nentry + e) * n + r]
                         : p.phi[(pool * nglobal + g) * n + r];
    }
    for (int g = at; g < nglobal; g += WARP) alpha[g] = p.alpha[pool * nglobal + g];
    __syncwarp();
    if (p.w) return;
    for (int k = at; k < C * C; k += WARP) Rinv[k] = p.Rinv[pool * C * C + k];
    for (int k = at; k < C * p.slopes(); k += WARP) {
      in[k] = 0;
      for (int f = 0; f < ROWS; ++f) in[k] += slope[k / C * ROWS + f] * A[f * WIDE + k % C];
    }
    __syncwarp();
  }
};

// Lanes of U that a thread reads at once.
template <int U, typename Real>
constexpr int at_once = Some<Real>::LANES < U ? Some<Real>::LANES : U;

// Lanes of a thread, and warps of a multiprocessor: what has room in the registers. The
// tables are read from shared memory once for all lanes of a thread.
template <int ROWS, int C, bool WHITE, typename Real>
struct Shape {
  static constexpr bool SINGLE = sizeof(Real) == 4, FEW = ROWS <= 16 && C <= 3;
  static constexpr int ALL = (WHITE ? (FEW || SINGLE ? 4 : 2) : SINGLE ? 2 : 1);
  static constexpr int LANES = ROWS > 16 && ALL > 1 ? ALL / 2 : ALL;
  static constexpr int WARPS = !FEW ? 8 : WHITE ? (SINGLE ? 14 : 8) : SINGLE ? 18 : 16;
};

// The lanes of one thread, U of them.
template <int ROWS, int C, int U, bool WHITE, typename Real>
struct OfThread {
  static constexpr int WIDE = Tables<ROWS, C, Real>::WIDE;
  const Weighted<Real>& p;
  const Tables<ROWS, C, Real>& table;
  long block, first, last;  // lanes of the block, from the first of this thread
  Real x[ROWS][U];    // data, then residuals, then N^-1 residuals
  Real s[C][U];       // amplitudes
  Real left[C][U];    // whitened: what rounding left of the signal in x, along A

  // Side by side over the warp, so many bytes at a time as one thread can read.
  __device__ void read(const Real* rows, int nrow, int r, Real (&to)[U]) const {
    constexpr int LANES = at_once<U, Real>;
#pragma unroll
    for (int u = 0; u < U; u += LANES) {
      using Lanes = Some<Real, LANES>;
      const Real* from = rows + (block * nrow + r) * p.nlane + first + u * WARP;
      Lanes some{};
      if (r < nrow && first + u * WARP < last) some = *reinterpret_cast<const Lanes*>(from);
#pragma unroll
      for (int l = 0; l < LANES; ++l) to[u + l] = some.of[l];
    }
  }

  // Data less the global terms.
  __device__ void data() {
#pragma unroll
    for (int f = 0; f < ROWS; ++f) read(p.d, p.nrow, f, x[f]);
    for (int g = 0; g < p.nglobal; ++g) {
      const Real* phi = table.slope + ROWS * (p.nentry + g);
      Real t[U];
      read(p.t, p.ntemplate, p.use[g], t);
#pragma unroll
      for (int u = 0; u < U; ++u) t[u] *= table.alpha[g];
#pragma unroll
      for (int f = 0; f < ROWS; ++f)
#pragma unroll
        for (int u = 0; u < U; ++u) x[f][u] -= phi[f] * t[u];
    }
  }

  // A row of A. It is read whenever it is used: there are not registers for all of them.
  __device__ void row(int f, Real (&a)[WIDE]) const {
#pragma unroll
    for (int c = 0; c < C; c += 2) read_again(table.A + f * WIDE + c, a[c], a[c + 1]);
  }

  // Less the amplitudes along A.
  __device__ void subtract(int f, const Real (&a)[WIDE], const Real (&z)[C][U]) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int u = 0; u < U; ++u) x[f][u] -= a[c] * z[c][u];
  }

  // The part of one row in A^T y.
  __device__ void along(const Real (&a)[WIDE], const Real (&y)[U], Real (&z)[C][U]) const {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int u = 0; u < U; ++u) z[c][u] += a[c] * y[u];
  }

  // Amplitudes along orthonormal columns; chi2. What rounding left of the signal along
  // them is found once more, and taken off all sums.
  __device__ Real whitened() {
    Real a[WIDE], z[C][U] = {}, chi2 = 0;
#pragma unroll
    for (int f = 0; f < ROWS; ++f) {
      row(f, a);
      along(a, x[f], z);
    }
#pragma unroll
    for (int f = 0; f < ROWS; ++f) {
      row(f, a);
      subtract(f, a, z);
      along(a, x[f], left);
#pragma unroll
      for (int u = 0; u < U; ++u) chi2 += x[f][u] * x[f][u];
    }
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int u = 0; u < U; ++u) {
        chi2 -= left[c][u] * left[c][u];
        z[c][u] += left[c][u];
      }
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = c; i < C; ++i)
#pragma unroll
        for (int u = 0; u < U; ++u) s[c][u] += table.Rinv[c * C + i] * z[i][u];
    return chi2;
  }

  // Amplitudes by the normal equations of each lane; chi2.
  __device__ Real weighted() {
    constexpr int NT = C * (C + 1) / 2;
    Real a[WIDE], w[ROWS][U], m[U][NT] = {}, chi2 = 0;
#pragma unroll
    for (int f = 0; f < ROWS; ++f) read(p.w, p.nrow, f, w[f]);
#pragma unroll
    for (int f = 0; f < ROWS; ++f) {
      Real wd[U];
#pragma unroll
      for (int u = 0; u < U; ++u) wd[u] = w[f][u] * x[f][u];
      row(f, a);
      along(a, wd, s);
#pragma unroll
      for (int i = 0; i < C; ++i)
#pragma unroll
        for (int j = 0; j <= i; ++j) {
          const Real both = a[i] * a[j];
#pragma unroll
          for (int u = 0; u < U; ++u) m[u][i * (i + 1) / 2 + j] += both * w[f][u];
        }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      Real own[C];
#pragma unroll
      for (int c = 0; c < C; ++c) own[c] = s[c][u];
      Factor<C, Real>(m[u]).solve(own);
#pragma unroll
      for (int c = 0; c < C; ++c) s[c][u] = own[c];
    }
#pragma unroll
    for (int f = 0; f < ROWS; ++f) {
      row(f, a);
      subtract(f, a, s);
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const Real r = x[f][u];
        x[f][u] *= w[f][u];
        chi2 += r * x[f][u];
      }
    }
    return chi2;
  }

  // What multiplies a slope in each lane: an amplitude, or a template.
  __device__ void factor(int column, int g, Real (&to)[U]) const {
    if (column < C) {
#pragma unroll
      for (int c = 0; c < C; ++c)
        if (c == column)
#pragma unroll
          for (int u = 0; u < U; ++u) to[u] = s[c][u];
      return;
    }
    read(p.t, p.ntemplate, p.use[g], to);
  }

  // Add to the sums of this thread.
  __device__ void collect(Real chi2) {
    double* sum = table.sum + threadIdx.x;
    sum[0] += 0.5 * chi2;
    for (int e = 0; e < p.slopes(); ++e) {
      const bool entry = e < p.nentry;
      const int column = entry ? p.column[e] : C;
      // A regional column is there with its coefficient, beside those that are free.
      const int g = entry ? p.nglobal - p.ncolumn + column : e - p.nentry;
      const Real* slope = table.slope + ROWS * e;
      Real y[U] = {}, by[U], total = 0;
#pragma unroll
      for (int f = 0; f < ROWS; ++f)
#pragma unroll
        for (int u = 0; u < U; ++u) y[u] += slope[f] * x[f][u];
      if constexpr (WHITE)
#pragma unroll
        for (int c = 0; c < C; ++c)
#pragma unroll
          for (int u = 0; u < U; ++u) y[u] -= table.in[e * C + c] * left[c][u];
      factor(column, g, by);
#pragma unroll
      for (int u = 0; u < U; ++u) total += y[u] * by[u];
      if (entry && column >= C) total *= table.alpha[g];
      sum[(1 + (entry ? p.kind[e] : p.nkind + g)) * WARP] -= total;
    }
  }
};

// A warp for each share of a tile; to (block, tile, share, sum).
template <int ROWS, int C, bool WHITE, typename Real>
__global__ void __launch_bounds__(WARP, Shape<ROWS, C, WHITE, Real>::WARPS)
    value_gradients(const __grid_constant__ Weighted<Real> p, double* to) {
  constexpr int U = Shape<ROWS, C, WHITE, Real>::LANES;
  const Tables<ROWS, C, Real> table(&shared<unsigned char>(), p);
  const long tile = blockIdx.x / p.nshare, block = tile / p.ntile;
  const long lanes = p.nlane / p.ntile, count = lanes / p.nshare;
  const long first = tile % p.ntile * lanes + blockIdx.x % p.nshare * count;
  table.fill(p, p.pool[tile]);
  for (long at = 0; at < count; at += U * WARP) {
    const long own_first = first + at + threadIdx.x * at_once<U, Real>;
    OfThread<ROWS, C, U, WHITE, Real> own{p,  table, block, own_first, first + count,
                                          {}, {},    {}};
    own.data();
    own.collect(WHITE ? own.whitened() : own.weighted());
  }
  __syncwarp();
  for (int k = threadIdx.x; k < p.sums(); k += WARP) {
    double total = 0.0;
    // Each thread begins with a number of its own: they are in different banks.
    for (int i = 0; i < WARP; ++i) total += table.sum[k * WARP + (i + k) % WARP];
    to[static_cast<long>(blockIdx.x) * p.sums() + k] = total;
  }
}

}  // namespace distsep::gpu
