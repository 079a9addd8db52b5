// Small symmetric matrices, one in each lane.
#pragma once

#include "lanes.hpp"

namespace distsep {

// L D L^T of the matrices of a vector of lanes.
template <int C>
struct Factor {
  Vec L[C][C], inverse[C];

  explicit Factor(const Vec* m) {  // lower triangle, row by row
    for (int j = 0; j < C; ++j) {
      Vec pivot = m[j * (j + 1) / 2 + j];
      // An empty lane has no weight: a unit matrix in place of zero.
      pivot = pivot == 0.0 ? all(1.0) : pivot;
      for (int k = 0; k < j; ++k) pivot -= L[j][k] * L[j][k] * inverse[k];
      inverse[j] = 1.0 / pivot;
      for (int i = j + 1; i < C; ++i) {
        L[i][j] = m[i * (i + 1) / 2 + j];
        for (int k = 0; k < j; ++k) L[i][j] -= L[i][k] * L[j][k] * inverse[k];
      }
    }
  }

  void half(Vec* x) const {  // L^-1 x
    for (int i = 0; i < C; ++i)
      for (int k = 0; k < i; ++k) x[i] -= L[i][k] * inverse[k] * x[k];
  }

  void solve(Vec* x) const {
    half(x);
    for (int i = C - 1; i >= 0; --i) {
      for (int k = i + 1; k < C; ++k) x[i] -= L[k][i] * x[k];
      x[i] *= inverse[i];
    }
  }

  Vec dot(const Vec* a, const Vec* b) const {  // a^T M^-1 b of half-solved a, b
    Vec x = a[0] * inverse[0] * b[0];
    for (int c = 1; c < C; ++c) x += a[c] * inverse[c] * b[c];
    return x;
  }
};

}  // namespace distsep
