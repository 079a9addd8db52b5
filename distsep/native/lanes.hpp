// Lanes of samples on vectors of eight, and how they come out of the maps.
//
// The plain form of every kernel here is the XLA program of the same name in
// distsep/inference; these do the same sums while a run of lanes is in cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace distsep {

typedef double Vec __attribute__((vector_size(64)));

constexpr int WIDTH = 8;           // lanes of a vector
constexpr int CHUNK = 64;          // lanes that are worked on in first-level cache
constexpr int NVEC = CHUNK / WIDTH;
constexpr int RUN = 512;           // lanes fetched at once: a page of each map
constexpr int NSUB = RUN / CHUNK;

inline Vec all(double x) { return Vec{x, x, x, x, x, x, x, x}; }

inline double sum(Vec x) {
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

inline Vec at(const double* p) {
  Vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void put(double* p, Vec x) { std::memcpy(p, &x, sizeof x); }

struct Free {
  void operator()(double* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Scratch = std::unique_ptr<double[], Free>;

inline Scratch scratch(long n) {
  auto* p = static_cast<double*>(
      ::operator new[](sizeof(double) * (n > 0 ? n : 1), std::align_val_t(64)));
  std::memset(p, 0, sizeof(double) * n);
  return Scratch(p);
}

// Maps whose noise has one shape, and what whitens them: `packing.pack` in C++.
struct Whitened {
  const void* d;           // (row, group, pixel), NaN = not observed
  bool single;             // d is float32
  const double* t;         // (template, group, pixel)
  const double* weight;    // (pixel) or null
  const int32_t* index;    // (block, lane) place in (group, block pixel) or null
  const int32_t* classes;  // (block, tile) noise class
  const double* white;     // (class, row) or (class, row, row)
  const double* scale;     // (group)
  int nrow, ngroup, ntemplate;
  bool dense;              // white is a matrix
  long npix, block, nlane, ntile;

  int entries() const { return nrow + ntemplate; }
  int padded() const { return (entries() + 3) / 4 * 4; }
};

// Puts up to RUN lanes of one tile, whitened, into `x` (sub, row, CHUNK), the templates
// after the rows of the data, and the root of their weights into `root` (RUN).
class Fetch {
 public:
  explicit Fetch(const Whitened& m)
      : m_(m), raw_(scratch(m.dense ? m.nrow * RUN : 0)), size_(m.padded() * CHUNK) {}

  void operator()(long b, long tile, long lane, int count, double* x, double* root) {
    for (int l = 0; l < count; ++l) place(b, lane + l, l);
    const double* white = m_.white + m_.classes[b * m_.ntile + tile] * m_.nrow *
                                         (m_.dense ? m_.nrow : 1);
    for (int l = 0; l < count; ++l)
      root[l] = at_[l] < 0 ? 0.0
                           : std::sqrt(m_.scale[group_[l]]) *
                                 (m_.weight ? std::sqrt(m_.weight[pixel_[l]]) : 1.0);
    for (int l = count; l < RUN; ++l) root[l] = 0.0;
    const bool straight = !m_.index;
    for (int r = 0; r < m_.nrow; ++r) {
      const long shift = static_cast<long>(r) * m_.ngroup * m_.npix;
      const double factor = m_.dense ? 1.0 : white[r];
      if (m_.single)
        row(static_cast<const float*>(m_.d) + shift, straight, count, factor, root,
            x + r * CHUNK);
      else
        row(static_cast<const double*>(m_.d) + shift, straight, count, factor, root,
            x + r * CHUNK);
    }
    for (int k = 0; k < m_.ntemplate; ++k)
      row(m_.t + static_cast<long>(k) * m_.ngroup * m_.npix, straight, count, 1.0, root,
          x + (m_.nrow + k) * CHUNK);
    if (m_.dense) mix(white, x);
  }

  // Place of each lane that was fetched in (group, pixel), -1 = empty.
  const long* at() const { return at_; }

 private:
  void place(long b, long lane, int l) {
    const long where = m_.index ? m_.index[b * m_.nlane + lane] : lane;
    if (where < 0) {
      at_[l] = -1;
      group_[l] = 0;
      pixel_[l] = 0;
      return;
    }
    group_[l] = static_cast<int>(where / m_.block);
    pixel_[l] = b * m_.block + where % m_.block;
    at_[l] = group_[l] * m_.npix + pixel_[l];
  }

  template <typename Real>
  void row(const Real* map, bool straight, int count, double factor, const double* root,
           double* x) const {
    for (int s = 0; s < NSUB; ++s) {
      double* to = x + s * size_;
      const int n = std::max(0, std::min(CHUNK, count - s * CHUNK));
      const double* by = root + s * CHUNK;
      if (straight && n > 0) {
        const Real* from = map + at_[s * CHUNK];
        for (int l = 0; l < n; ++l) {
          const double value = from[l];
          to[l] = (value == value ? value : 0.0) * factor * by[l];
        }
      } else {
        for (int l = 0; l < n; ++l) {
          const double value = at_[s * CHUNK + l] < 0 ? 0.0 : map[at_[s * CHUNK + l]];
          to[l] = (value == value ? value : 0.0) * factor * by[l];
        }
      }
      for (int l = n; l < CHUNK; ++l) to[l] = 0.0;
    }
  }

  void mix(const double* white, double* x) {
    for (int s = 0; s < NSUB; ++s) {
      double* to = x + s * size_;
      std::memcpy(raw_.get(), to, sizeof(double) * m_.nrow * CHUNK);
      for (int r = 0; r < m_.nrow; ++r)
        for (int v = 0; v < CHUNK; v += WIDTH) {
          Vec y = all(0.0);
          for (int k = 0; k < m_.nrow; ++k)
            y += all(white[r * m_.nrow + k]) * distsep::at(raw_.get() + k * CHUNK + v);
          put(to + r * CHUNK + v, y);
        }
    }
  }

  const Whitened& m_;
  Scratch raw_;
  long size_;
  long at_[RUN], pixel_[RUN];
  int group_[RUN];
};

}  // namespace distsep
