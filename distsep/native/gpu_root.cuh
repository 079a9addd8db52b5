// Root of the sum of x x^T of every tile, in one sweep of a GPU's memory.
//
// Cholesky QR of samples that a triangle made nearly orthonormal beforehand, where they are
// bright: a first one from some samples spread over the tile; where that was not good
// enough, one from all.
// Products run on tensor cores, in float64. A thread takes samples as they lie in memory,
// and one product hands it what it needs for the next.
#pragma once

#include "gpu_device.cuh"

namespace distsep::gpu {

// Few threads for each tile, and many tiles at once: while one finds its factor, which
// is a chain of short steps, others read.
constexpr int WARPS = 2, THREADS = WARP * WARPS;
constexpr int FEWEST = 32;     // lanes of a tile
constexpr int MOST = 32;       // entries of a sample
constexpr int FIRST = 128;     // lanes for the first triangle
constexpr int SWEEPS = 4;      // over all lanes, at most
constexpr double GOOD = 1e-2;  // least pivot of samples that are nearly orthonormal
// Least pivot of samples whose signal is about as faint as their noise, a hundred times
// as large at most: they need no triangle. Their Gram matrix rounds by 1e-12 of the noise.
constexpr double FAINT = 1e-4;
constexpr double EPSILON = 2.220446049250313e-16;
constexpr double LAST_BITS = 64 * EPSILON;

// The samples of many blocks: d (block, row, lane), t (block, template, lane).
template <typename Real>
struct Samples {
  const Real *d, *t;
  int nrow, ntemplate, ntile;
  long nlane;
};

// A column more than it has: rows begin in different banks of the memory.
template <int N>
using Matrix = double[N][N + 1];

// The memory of a thread block; triangles are lower ones.
template <int N>
struct Shared {
  Matrix<N> gram, triangle, white;
  static_assert(WARPS >= 2);
  Matrix<N> part[WARPS];  // of the Gram matrix, by warp; then its factor and inverse
  double length[N];       // of each row of x, over the samples that were taken first
  double scale[N], over[N], root[N], over_root[N], least[N], least_pivot;
  alignas(16) double row[2][N];  // in turns

  __device__ Matrix<N>& factor() { return part[0]; }
  __device__ Matrix<N>& inverse() { return part[1]; }
};

// Do something for every entry of a matrix, then wait for all threads.
template <int N, typename Body>
__device__ void entries(Body body) {
  for (int e = thread(); e < N * N; e += THREADS) body(e / N, e % N);
  __syncthreads();
}

// A row for each entry of a sample, and rows of zeros up to N.
template <int N, typename Real>
struct Tile {
  static constexpr int GROUPS = N / 8, ROWS = N / 4;
  static constexpr int LANES = Some<Real>::LANES, STEP = 8 * LANES;
  const Samples<Real>& x;
  long block, first;
  int lanes;

  __device__ Tile(const Samples<Real>& x, long tile)
      : x(x), block(tile / x.ntile), lanes(x.nlane / x.ntile) {
    first = tile % x.ntile * lanes;
  }

  __device__ const Real* row(int r) const {
    const int u = r - x.nrow;
    return r < x.nrow        ? x.d + (block * x.nrow + r) * x.nlane + first
           : u < x.ntemplate ? x.t + (block * x.ntemplate + u) * x.nlane + first
                             : nullptr;
  }

  // Gram matrix of x, or of W x: `count` steps of this warp, from `begin`, `stride` lanes
  // apart. A thread takes of x what it needs for the first product.
  template <bool PLAIN>
  __device__ void gram(Shared<N>& s, int begin, int stride, int count) const {
    const int lane = thread() % WARP, warp = thread() / WARP, g = lane / 4, t = lane % 4;
    double w[GROUPS][GROUPS][2], sum[GROUPS][GROUPS][2] = {};
    const Real* from[ROWS];
#pragma unroll
    for (int m = 0; m < GROUPS; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Real* own = row(8 * m + (PLAIN ? g : 4 * h + t));
        from[2 * m + h] = own ? own + LANES * (PLAIN ? 4 * h + t : g) : nullptr;
#pragma unroll
        for (int n = 0; n <= m && !PLAIN; ++n)
          w[m][n][h] = s.white[8 * m + g][8 * n + 4 * h + t];
      }
#pragma unroll 2
    for (int i = 0; i < count; ++i) {
      Some<Real> x[ROWS];
#pragma unroll
      for (int k = 0; k < ROWS; ++k) {
        x[k] = Some<Real>{};
        if (from[k])
          x[k] = *reinterpret_cast<const Some<Real>*>(from[k] + begin + i * stride);
      }
#pragma unroll
      for (int e = 0; e < LANES; ++e) {
        double y[GROUPS][2] = {};
        if constexpr (PLAIN) {
#pragma unroll
          for (int k = 0; k < ROWS; ++k) y[k / 2][k % 2] = x[k].of[e];
        } else {
#pragma unroll
          for (int m = 0; m < GROUPS; m += 2) {
#pragma unroll
            for (int n = 0; n <= m; ++n)
              multiply(y[m], y[m + 1], w[m][n], w[m + 1][n], x[2 * n].of[e],
                       x[2 * n + 1].of[e]);
            multiply(y[m + 1], w[m + 1][m + 1][0], x[2 * m + 2].of[e]);
            multiply(y[m + 1], w[m + 1][m + 1][1], x[2 * m + 3].of[e]);
          }
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

// 1 / x of ordinary numbers, without the branches of a division.
__device__ inline double reciprocal(double x) {
  double y = roughly_over(x);
  for (int twice = 0; twice < 2; ++twice) y += y * (1 - x * y);
  return y;
}

// Factor of the Gram matrix and its inverse, column by column.
//
// The matrix is scaled to a unit diagonal, plus `shift`: no pivot is less than that.
// Without a shift a row of x that others make up, but for its last bits, is dropped: it
// has no column in the factor and no row in the inverse. What is left of such a row is
// rounding, and another sweep would round otherwise. Returns the least pivot.
//
// A thread has a row of the matrix in its registers, or one of the inverse: of these the
// one is used after the pivot, the other before it.
template <int N>
__device__ double cholesky(Shared<N>& s, double shift) {
  static_assert(2 * N <= WARP || 2 * N == THREADS);
  const auto wait = [] { 2 * N <= WARP ? __syncwarp() : __syncthreads(); };
  const int at = thread(), r = at % N;
  const bool left = at < N;
  if (at < 2 * N) {
    if (left) {
      const double x = s.gram[r][r], scale = x > 0 ? sqrt(x) : 1.0;
      const double bits = LAST_BITS * s.length[r], own = s.triangle[r][r] * scale;
      const double some = x > 0 && own > bits ? bits / own : 2.0;  // of a unit pivot
      s.scale[r] = scale, s.over[r] = 1 / scale;
      s.least[r] = shift > 0 ? 0.0 : max(N * EPSILON, some * some);
    }
    wait();
    double v[N], pivot = 0.0, least = 1.0;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const double x = s.gram[max(r, k)][min(r, k)] * (s.over[r] * s.over[k]);
      v[k] = !left ? 0.0 : r == k ? 1 + shift : x;
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      double* row = s.row[j % 2];
      if (r == j)
#pragma unroll
        for (int k = 0; k < N; ++k)
          if (left == (k >= j)) row[k] = v[k];
      wait();
      double own = row[j];
      own = shift > 0 ? max(own, shift) : own > s.least[j] ? own : 0.0;
      if (r == j) pivot = own;
      if (!(own > 0)) continue;
      least = min(least, own);
      const double part = r > j ? row[r] * reciprocal(own) : 0.0;
      const double after = left ? part : 0.0, before = left ? 0.0 : part;
      v[j] = left ? (r > j ? row[r] : v[j]) : -before;
#pragma unroll
      for (int k = 0; k < N; ++k)
        if (k != j) v[k] -= (k > j ? after : before) * row[k];
    }
    if (left) {
      const double root = sqrt(pivot);
      s.root[r] = root, s.over_root[r] = root > 0 ? 1 / root : 0.0;
    }
    if (at == 0) s.least_pivot = least;
    wait();
    const double mine = left ? s.scale[r] : s.over_root[r];
    Matrix<N>& to = left ? s.factor() : s.inverse();
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const double other = left ? s.over_root[k] : s.over[k];
      const double x = k < r ? v[k] * other : k > r ? 0.0 : left ? s.root[r] : other;
      to[r][k] = mine * x;
    }
  }
  __syncthreads();
  return s.least_pivot;
}

// a = a b.
template <int N>
__device__ void times(Matrix<N>& a, const Matrix<N>& b) {
  static_assert(THREADS % N == 0 && N * N % THREADS == 0);
  constexpr int EACH = N * N / THREADS;
  const int at = thread();
  double found[EACH] = {};
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = (at + e * THREADS) / N, k = at % N;
#pragma unroll 4
    for (int l = 0; l < N; ++l) found[e] += a[i][l] * b[l][k];
  }
  __syncthreads();
#pragma unroll
  for (int e = 0; e < EACH; ++e) a[(at + e * THREADS) / N][at % N] = found[e];
  __syncthreads();
}

// One thread block for each tile; to (tile, n, n), upper triangles.
template <int N, typename Real>
__global__ void __launch_bounds__(THREADS, N == 16 ? 10 : 1)
    roots(Samples<Real> x, double* to) {
  auto& s = shared<Shared<N>>();
  const Tile<N, Real> tile(x, blockIdx.x);
  constexpr int STEP = Tile<N, Real>::STEP;
  const int n = x.nrow + x.ntemplate, steps = tile.lanes / STEP;
  // First some steps of each warp, spread over the tile; of few steps all.
  const int share = steps / WARPS, warp = thread() / WARP;
  int begin = max(share, 1) * warp, stride = 1;
  int count = share ? min(share, FIRST / STEP / WARPS) : begin < steps;
  double shift = 11 * N * (N + tile.lanes) * EPSILON;
  bool plain = true;
  if (const int i = thread(); i < N) s.length[i] = 0.0;
  entries<N>([&](int i, int k) {
    s.gram[i][k] = 0.0;
    s.white[i][k] = s.triangle[i][k] = i == k;
  });
  for (int sweep = 0;; ++sweep) {
    plain ? tile.template gram<true>(s, begin * STEP, stride * STEP, count)
          : tile.template gram<false>(s, begin * STEP, stride * STEP, count);
    const double least = cholesky(s, shift);
    if (sweep && (least > (plain ? FAINT / 10 : GOOD) || sweep == SWEEPS)) break;
    plain = !sweep && least > FAINT;
    if (!plain) {
      times(s.triangle, s.factor());
      times(s.inverse(), s.white);
      entries<N>([&](int i, int k) { s.white[i][k] = s.inverse()[i][k]; });
    }
    if (const int i = thread(); !sweep && i < N) s.length[i] = sqrt(s.gram[i][i]);
    // Then all of them.
    begin = warp, stride = WARPS, shift = 0.0;
    count = (steps - warp + WARPS - 1) / WARPS;
  }
  if (!plain) times(s.triangle, s.factor());
  const Matrix<N>& root = plain ? s.factor() : s.triangle;
  entries<N>([&](int i, int k) {
    if (i < n && k < n)
      to[(static_cast<long>(blockIdx.x) * n + k) * n + i] =
          k <= i ? root[i][k] : 0.0;
  });
}

}  // namespace distsep::gpu
