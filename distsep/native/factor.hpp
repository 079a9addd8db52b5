// Small symmetric matrices, one in each lane: for processors and for GPUs.
#pragma once

#ifdef __CUDACC__
#define DISTSEP_ANYWHERE __host__ __device__
#else
#define DISTSEP_ANYWHERE
#endif

namespace distsep {

// L D L^T of the matrices of one lane, or of a vector of lanes.
template <int C, typename Lane>
struct Factor {
  Lane L[C][C], inverse[C];

  DISTSEP_ANYWHERE explicit Factor(const Lane* m) {  // lower triangle, row by row
    for (int j = 0; j < C; ++j) {
      Lane pivot = m[j * (j + 1) / 2 + j];
      // An empty lane has no weight: a unit matrix in place of zero.
      pivot = pivot == 0 ? pivot + 1 : pivot;
      for (int k = 0; k < j; ++k) pivot -= L[j][k] * L[j][k] * inverse[k];
      inverse[j] = 1 / pivot;
      for (int i = j + 1; i < C; ++i) {
        L[i][j] = m[i * (i + 1) / 2 + j];
        for (int k = 0; k < j; ++k) L[i][j] -= L[i][k] * L[j][k] * inverse[k];
      }
    }
  }

  DISTSEP_ANYWHERE void half(Lane* x) const {  // L^-1 x
    for (int i = 0; i < C; ++i)
      for (int k = 0; k < i; ++k) x[i] -= L[i][k] * inverse[k] * x[k];
  }

  DISTSEP_ANYWHERE void solve(Lane* x) const {
    half(x);
    for (int i = C - 1; i >= 0; --i) {
      for (int k = i + 1; k < C; ++k) x[i] -= L[k][i] * x[k];
      x[i] *= inverse[i];
    }
  }

  Lane dot(const Lane* a, const Lane* b) const {  // a^T M^-1 b of half-solved a, b
    Lane x = a[0] * inverse[0] * b[0];
    for (int c = 1; c < C; ++c) x += a[c] * inverse[c] * b[c];
    return x;
  }
};

}  // namespace distsep
