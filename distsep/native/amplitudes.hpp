// Amplitudes and chi2 of every sample whose noise has one shape: the second pass.
#pragma once

#include <algorithm>

#include "lanes.hpp"

namespace distsep {

struct Weights : Terms {
  const double* Q;        // (pool, row, comp) orthonormal
  const double* Rinv;     // (pool, comp, comp)
  const int32_t* pool;    // (block, tile)
};

template <int C>
class Amplitudes {
 public:
  Amplitudes(const Whitened& m, const Weights& w)
      : m_(m),
        w_(w),
        fetch_(m),
        x_(scratch(m.padded() * CHUNK)),
        root_(scratch(CHUNK)),
        model_(scratch(m.nrow * m.ntemplate)),
        out_(scratch((C + 1) * CHUNK)) {}

  // maps: (comp + 1, group, pixel), s [uK_CMB] and chi2; returns chi2 of the block.
  double operator()(long b, double* maps) {
    if (m_.index)
      for (int k = 0; k < (C + 1) * m_.ngroup; ++k)
        std::fill_n(maps + k * m_.npix + b * m_.block, m_.block, std::nan(""));
    const long size = m_.nlane / m_.ntile;
    Vec chi2 = all(0.0);
    for (long tile = 0; tile < m_.ntile; ++tile) {
      prepare(b, tile);
      for (long lane = tile * size; lane < (tile + 1) * size; lane += CHUNK) {
        const int count =
            static_cast<int>(std::min<long>(CHUNK, (tile + 1) * size - lane));
        fetch_(b, tile, lane, count, x_.get(), root_.get());
        Ahead next = fetch_.ahead(CHUNK);
        for (int v = 0; v < CHUNK; v += 2 * WIDTH)
          chi2 += lanes(x_.get() + v, root_.get() + v, out_.get() + v, next);
        spread(count, maps);
      }
    }
    return sum(chi2);
  }

 private:
  void prepare(long b, long tile) {
    const long pool = w_.pool[b * m_.ntile + tile];
    Q_ = w_.Q + pool * m_.nrow * C;
    Rinv_ = w_.Rinv + pool * C * C;
    w_.model(pool, m_.nrow, m_.ntemplate, model_.get());
  }

  // Two vectors of lanes: amplitudes and chi2 into `out`; returns the sum of chi2.
  Vec lanes(double* d, const double* root, double* out, Ahead& next) const {
    const int nt = m_.ntemplate;
    for (int f = 0; f < m_.nrow; ++f)
      for (int k = 0; k < nt; ++k)
        for (int u = 0; u < 2 * WIDTH; u += WIDTH)
          put(d + f * CHUNK + u,
              at(d + f * CHUNK + u) -
                  all(model_[f * nt + k]) * at(d + (m_.nrow + k) * CHUNK + u));
    // Once more by y: removes what rounding left along A.
    Vec z[C][2], y[C][2], chi2[2] = {all(0.0), all(0.0)};
    project<C, 2>(Q_, m_.nrow, d, CHUNK, z, y,
                  [&](int, int u, Vec r) {
                    next.one();
                    chi2[u] += r * r;
                  });
    for (int c = 0; c < C; ++c)
      for (int u = 0; u < 2; ++u) {
        z[c][u] += y[c][u];
        chi2[u] -= y[c][u] * y[c][u];
      }
    for (int u = 0; u < 2; ++u) {
      put(out + C * CHUNK + u * WIDTH, chi2[u]);
      // Lanes are whitened by the root of their weight: the amplitudes too.
      const Vec by = at(root + u * WIDTH);
      const Vec unweigh = by > 0.0 ? 1.0 / by : all(std::nan(""));
      for (int i = 0; i < C; ++i) {
        Vec s = all(0.0);
        for (int j = i; j < C; ++j) s += all(Rinv_[i * C + j]) * z[j][u];
        put(out + i * CHUNK + u * WIDTH, s * unweigh);
      }
    }
    return chi2[0] + chi2[1];
  }

  // Put a chunk of what was found where its samples are on the sky.
  void spread(int count, double* maps) const {
    const long wide = m_.ngroup * m_.npix;
    for (int k = 0; k <= C; ++k) {
      const double* out = out_.get() + k * CHUNK;
      double* map = maps + k * wide;
      const long* at = fetch_.at();
      if (!m_.index)
        std::copy_n(out, count, map + at[0]);
      else
        for (int l = 0; l < count; ++l)
          if (at[l] >= 0) map[at[l]] = out[l];
    }
  }

  const Whitened& m_;
  const Weights& w_;
  Fetch fetch_;
  const double *Q_ = nullptr, *Rinv_ = nullptr;
  Scratch x_, root_, model_, out_;
};

}  // namespace distsep
