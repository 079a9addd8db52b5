// Root of the sum of x x^T of every tile, in one sweep of a GPU's memory.
//
// Cholesky QR of samples that a triangle made nearly orthonormal beforehand: a first one
// from some samples spread over the tile; where that was not good enough, one from all.
// Products run on tensor cores, in float64. A thread takes samples as they lie in memory,
// and one product hands it what it needs for the next.
#pragma once

#include "gpu_device.cuh"

namespace distsep::gpu {

// Few threads for each tile, and many tiles at once: while one finds its factor, which
// is a chain of short steps, others read.
constexpr int WARP = 32, WARPS = 2, THREADS = WARP * WARPS;
constexpr int FEWEST = 32;     // lanes of a tile
constexpr int MOST = 32;       // entries of a sample
constexpr int FIRST = 16;      // steps of all warps, for the first triangle
constexpr int SWEEPS = 4;      // over all lanes, at most
constexpr double GOOD = 1e-2;  // least pivot of samples that are nearly orthonormal
constexpr double EPSILON = 2.220446049250313e-16;
constexpr double LAST_BITS = 64 * EPSILON;

// The samples of many blocks: d (block, row, lane), t (block, template, lane).
template <typename Real>
struct Samples {
  const Real *d, *t;
  int nrow, ntemplate, ntile;
  long nlane;
};

// Lanes that a thread reads at once: 16 bytes.
template <typename Real>
struct alignas(16) Some {
  static constexpr int LANES = 16 / sizeof(Real);
  Real of[LANES];
};

// The memory of a thread block; triangles are lower ones.
template <int N>
struct Shared {
  double gram[N][N], triangle[N][N], white[N][N], factor[N][N], inverse[N][N];
  double length[N];  // of each row of x, over the samples that were taken first
  double scale[N], root[N];
  double part[WARPS][N][N];  // of the Gram matrix, by warp
};

// Do something for every entry of a matrix, then wait for all threads.
template <int N, typename Body>
__device__ void entries(Body body) {
  for (int e = threadIdx.x; e < N * N; e += THREADS) body(e / N, e % N);
  __syncthreads();
}

// A row for each entry of a sample, and rows of zeros up to N.
template <int N, typename Real>
struct Tile {
  static constexpr int GROUPS = N / 8, ROWS = N / 4, STEP = 8 * Some<Real>::LANES;
  const Real* row[ROWS];  // of this thread; null where there is none
  int g, t, warp, lanes;

  __device__ Tile(const Samples<Real>& x, long tile) {
    const int lane = threadIdx.x % WARP;
    g = lane / 4, t = lane % 4, warp = threadIdx.x / WARP;
    lanes = x.nlane / x.ntile;
    const long block = tile / x.ntile, first = (tile % x.ntile) * lanes;
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
      const int r = 4 * k + t, u = r - x.nrow;
      row[k] = r < x.nrow ? x.d + (block * x.nrow + r) * x.nlane + first
               : u < x.ntemplate ? x.t + (block * x.ntemplate + u) * x.nlane + first
                                 : nullptr;
    }
  }

  // Gram matrix of W x: `count` steps of this warp, from `first`, `stride` lanes apart.
  __device__ void gram(Shared<N>& s, int first, int stride, int count) const {
    double w[GROUPS][GROUPS][2], sum[GROUPS][GROUPS][2] = {};
#pragma unroll
    for (int m = 0; m < GROUPS; ++m)
#pragma unroll
      for (int n = 0; n <= m; ++n)
#pragma unroll
        for (int h = 0; h < 2; ++h) w[m][n][h] = s.white[8 * m + g][8 * n + 4 * h + t];
#pragma unroll 2
    for (int i = 0; i < count; ++i) {
      const int at = first + i * stride + Some<Real>::LANES * g;
      Some<Real> x[ROWS];
#pragma unroll
      for (int k = 0; k < ROWS; ++k) {
        x[k] = Some<Real>{};
        if (row[k]) x[k] = *reinterpret_cast<const Some<Real>*>(row[k] + at);
      }
#pragma unroll
      for (int e = 0; e < Some<Real>::LANES; ++e) {
        double y[GROUPS][2] = {};
#pragma unroll
        for (int m = 0; m < GROUPS; m += 2) {
#pragma unroll
          for (int n = 0; n <= m; ++n)
            multiply(y[m], y[m + 1], w[m][n], w[m + 1][n], x[2 * n].of[e],
                     x[2 * n + 1].of[e]);
          multiply(y[m + 1], w[m + 1][m + 1][0], x[2 * m + 2].of[e]);
          multiply(y[m + 1], w[m + 1][m + 1][1], x[2 * m + 3].of[e]);
        }
        // Which sample is which column is the same on both sides, and need not be known.
#pragma unroll
        for (int m = 0; m < GROUPS; m += 2) {
#pragma unroll
          for (int n = 0; n <= m; ++n)
            multiply(sum[m][n], sum[m + 1][n], y[m], y[m + 1], y[n][0], y[n][1]);
          multiply(sum[m + 1][m + 1], y[m + 1][0], y[m + 1][0]);
          multiply(sum[m + 1][m + 1], y[m + 1][1], y[m + 1][1]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < GROUPS; ++m)
#pragma unroll
      for (int n = 0; n <= m; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          s.part[warp][8 * m + g][8 * n + 2 * t + c] = sum[m][n][c];
    __syncthreads();
    entries<N>([&](int i, int k) {
      if (k / 8 > i / 8) return;
      double all = s.part[0][i][k];
#pragma unroll
      for (int other = 1; other < WARPS; ++other) all += s.part[other][i][k];
      s.gram[i][k] = all;
    });
  }
};

// Factor of the Gram matrix and its inverse, column by column.
//
// The matrix is scaled to a unit diagonal, plus `shift`: no pivot is less than that.
// Without a shift a row of x that others make up, but for its last bits, is dropped: it
// has no column in the factor and no row in the inverse. What is left of such a row is
// rounding, and another sweep would round otherwise. Returns the least pivot.
template <int N>
__device__ double cholesky(Shared<N>& s, double shift) {
  const auto pivot = [&](int j) {
    const double x = s.factor[j][j], own = s.triangle[j][j] * s.scale[j];
    const double bits = LAST_BITS * s.length[j];
    if (shift > 0) return max(x, shift);
    return x > N * EPSILON && x * own * own > bits * bits ? x : 0.0;
  };
  if (threadIdx.x < N) {
    const double x = s.gram[threadIdx.x][threadIdx.x];
    s.scale[threadIdx.x] = x > 0 ? sqrt(x) : 0.0;
  }
  __syncthreads();
  entries<N>([&](int i, int k) {
    const double both = s.scale[i] * s.scale[k], x = s.gram[max(i, k)][min(i, k)];
    s.factor[i][k] = i == k ? 1.0 + shift : both > 0 ? x / both : 0.0;
    s.inverse[i][k] = i == k;
  });
  double least = 1.0;
  for (int j = 0; j < N; ++j) {
    const double own = pivot(j), over = 1 / own;
    if (own > 0) least = min(least, own);
    entries<N>([&](int i, int k) {
      if (i <= j || k > i || !(own > 0)) return;
      const double part = s.factor[i][j] * over;
      double& to = k <= j ? s.inverse[i][k] : s.factor[i][k];
      to -= part * (k <= j ? s.inverse[j][k] : s.factor[k][j]);
    });
  }
  // Pivots on the diagonal; below it, a column times the root of its pivot.
  if (threadIdx.x < N) s.root[threadIdx.x] = sqrt(pivot(threadIdx.x));
  __syncthreads();
  entries<N>([&](int i, int k) {
    const double from = s.scale[k] > 0 ? s.scale[k] : 1.0, to = s.scale[i] > 0 ? s.scale[i] : 1.0;
    const double length = s.root[i] * from;
    s.inverse[i][k] = k <= i && length > 0 ? s.inverse[i][k] / length : 0.0;
    const double x = i == k ? s.root[i] : s.root[k] > 0 ? s.factor[i][k] / s.root[k] : 0.0;
    s.factor[i][k] = k <= i ? to * x : 0.0;
  });
  return least;
}

// a = a b, of triangles.
template <int N>
__device__ void times(double (&a)[N][N], const double (&b)[N][N]) {
  constexpr int EACH = (N * N + THREADS - 1) / THREADS;
  double found[EACH];
  for (int e = 0; e < EACH; ++e) {
    const int at = threadIdx.x + e * THREADS, i = at / N, k = at % N;
    found[e] = 0.0;
    if (at < N * N)
      for (int l = k; l <= i; ++l) found[e] += a[i][l] * b[l][k];
  }
  __syncthreads();
  for (int e = 0; e < EACH; ++e) {
    const int at = threadIdx.x + e * THREADS;
    if (at < N * N) a[at / N][at % N] = found[e];
  }
  __syncthreads();
}

// One thread block for each tile; to (tile, n, n), upper triangles.
template <int N, typename Real>
__global__ void __launch_bounds__(THREADS, N == 16 ? 12 : 1)
    roots(Samples<Real> x, double* to) {
  auto& s = shared<Shared<N>>();
  const Tile<N, Real> tile(x, blockIdx.x);
  constexpr int STEP = Tile<N, Real>::STEP;
  const int n = x.nrow + x.ntemplate, steps = tile.lanes / STEP;
  entries<N>([&](int i, int k) {
    s.white[i][k] = i == k;
    s.gram[i][k] = 0.0;
  });
  // Some steps of each warp, spread over the tile; a tile of few steps is taken whole.
  const int share = steps / WARPS, at = max(share, 1) * tile.warp;
  tile.gram(s, at * STEP, STEP, share ? min(share, FIRST / WARPS) : at < steps);
  cholesky(s, 11 * N * (N + tile.lanes) * EPSILON);
  entries<N>([&](int i, int k) {
    s.triangle[i][k] = s.factor[i][k];
    s.white[i][k] = s.inverse[i][k];
    if (i == k) s.length[i] = sqrt(s.gram[i][i]);
  });
  for (int sweep = 1;; ++sweep) {
    const int left = steps - tile.warp;
    tile.gram(s, tile.warp * STEP, WARPS * STEP, (left + WARPS - 1) / WARPS);
    const double least = cholesky(s, 0.0);
    if (least > GOOD || sweep == SWEEPS) break;
    times(s.triangle, s.factor);
    times(s.inverse, s.white);
    entries<N>([&](int i, int k) { s.white[i][k] = s.inverse[i][k]; });
  }
  times(s.triangle, s.factor);
  entries<N>([&](int i, int k) {
    if (i < n && k < n)
      to[(static_cast<long>(blockIdx.x) * n + k) * n + i] =
          k <= i ? s.triangle[i][k] : 0.0;
  });
}

}  // namespace distsep::gpu
