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

// Of U vectors of whitened lanes, Q (row, comp) orthonormal: z = Q^T d, r = d - Q z, each
// handed on as `each(row, vector, r)`, and what rounding left of it along Q, y = Q^T r.
template <int C, int U, typename Each>
inline __attribute__((always_inline)) void project(const double* Q, int nrow,
                                                   const double* d, long stride,
                                                   Vec (*z)[U], Vec (*y)[U], Each each) {
  for (int c = 0; c < C; ++c)
    for (int u = 0; u < U; ++u) z[c][u] = y[c][u] = all(0.0);
  for (int f = 0; f < nrow; ++f)
    for (int u = 0; u < U; ++u) {
      const Vec x = at(d + f * stride + u * WIDTH);
      for (int c = 0; c < C; ++c) z[c][u] += all(Q[f * C + c]) * x;
    }
  for (int f = 0; f < nrow; ++f)
    for (int u = 0; u < U; ++u) {
      Vec r = at(d + f * stride + u * WIDTH);
      for (int c = 0; c < C; ++c) r -= all(Q[f * C + c]) * z[c][u];
      for (int c = 0; c < C; ++c) y[c][u] += all(Q[f * C + c]) * r;
      each(f, u, r);
    }
}

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

// F alpha of one pool as rows by templates: several terms may act with one template.
struct Terms {
  const double* phi;    // (pool, global, row)
  const double* alpha;  // (pool, global)
  const int64_t* use;   // template of each global term
  int nglobal;

  void model(long pool, int nrow, int ntemplate, double* out) const {
    std::fill_n(out, nrow * ntemplate, 0.0);
    for (long g = pool * nglobal; g < (pool + 1) * nglobal; ++g)
      for (int f = 0; f < nrow; ++f)
        out[f * ntemplate + use[g - pool * nglobal]] += phi[g * nrow + f] * alpha[g];
  }
};

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

// Lines of memory that are fetched one by one, a few of each of many rows: each row is a
// stream of its own, too many for the processor to foresee, and it drops what it is
// asked for all at once.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const char* row, long stride, int lines, int nrow)
      : row_(row), stride_(stride), lines_(lines), left_(nrow) {}

  void one() {
    if (!left_) return;
    __builtin_prefetch(row_ + 64 * line_, 0, 2);
    if (++line_ == lines_) line_ = 0, row_ += stride_, --left_;
  }

 private:
  const char* row_ = nullptr;
  long stride_ = 0;
  int lines_ = 0, left_ = 0, line_ = 0;
};

// Puts up to CHUNK lanes of one tile, whitened, into `x` (row, CHUNK), the templates
// after the rows of the data, and the root of their weights into `root` (CHUNK): what
// is fetched is still in first-level cache when it is used.
class Fetch {
 public:
  explicit Fetch(const Whitened& m)
      : m_(m), raw_(scratch(m.dense ? m.nrow * CHUNK : 0)) {}

  void operator()(long b, long tile, long lane, int count, double* x, double* root) {
    places(b, lane, count);
    weigh(count, root);
    const long one = m_.nrow * (m_.dense ? m_.nrow : 1), wide = m_.ngroup * m_.npix;
    const double* white = m_.white + m_.classes[b * m_.ntile + tile] * one;
    double* to = m_.dense ? raw_.get() : x;
    if (m_.single)
      rows(static_cast<const float*>(m_.d), count, root, to, m_.dense ? nullptr : white);
    else
      rows(static_cast<const double*>(m_.d), count, root, to, m_.dense ? nullptr : white);
    for (int k = 0; k < m_.ntemplate; ++k)
      row(m_.t + k * wide, count, 1.0, root, x + (m_.nrow + k) * CHUNK);
    if (m_.dense) mix(white, x);
  }

  // The chunk so many lanes further, if it is a run of pixels.
  Ahead ahead(long lanes) const {
    if (m_.index) return Ahead();
    const long real = m_.single ? sizeof(float) : sizeof(double);
    const char* from = static_cast<const char*>(m_.d) + (at_[0] + lanes) * real;
    return Ahead(from, m_.ngroup * m_.npix * real, CHUNK * real / 64, m_.nrow);
  }

  // Place of each lane that was fetched in (group, pixel), -1 = empty.
  const long* at() const { return at_; }

 private:
  void places(long b, long lane, int count) {
    if (!m_.index) {  // a run of pixels of one group
      group_[0] = static_cast<int>(lane / m_.block);
      at_[0] = group_[0] * m_.npix + b * m_.block + lane % m_.block;
      return;
    }
    const int32_t* index = m_.index + b * m_.nlane + lane;
    const long shift = b * m_.block, more = m_.npix - m_.block;
    for (int l = 0; l < count; ++l) {
      group_[l] = index[l] < 0 ? 0 : index[l] / static_cast<int32_t>(m_.block);
      at_[l] = index[l] < 0 ? -1 : group_[l] * more + shift + index[l];
    }
  }

  void weigh(int count, double* root) const {
    std::fill(root + count, root + CHUNK, 0.0);
    if (!m_.index) {
      std::fill_n(root, count, std::sqrt(m_.scale[group_[0]]));
      if (!m_.weight) return;
      const double* weight = m_.weight + (at_[0] - group_[0] * m_.npix);
      for (int l = 0; l < count; ++l) root[l] *= std::sqrt(weight[l]);
      return;
    }
    for (int l = 0; l < count; ++l) {
      const double weight =
          m_.weight && at_[l] >= 0 ? m_.weight[at_[l] - group_[l] * m_.npix] : 1.0;
      root[l] = at_[l] < 0 ? 0.0 : std::sqrt(m_.scale[group_[l]] * weight);
    }
  }

  template <typename Real>
  void rows(const Real* map, int count, const double* root, double* x,
            const double* white) const {
    const long wide = m_.ngroup * m_.npix;
    for (int r = 0; r < m_.nrow; ++r)
      row(map + r * wide, count, white ? white[r] : 1.0, root, x + r * CHUNK);
  }

  template <typename Real>
  void row(const Real* map, int count, double factor, const double* root,
           double* x) const {
    if (m_.index) {
      for (int l = 0; l < count; ++l)
        x[l] = at_[l] < 0 ? 0.0 : static_cast<double>(map[at_[l]]);
      finish(x, count, factor, root, x);
    } else {
      finish(map + at_[0], count, factor, root, x);
    }
  }

  // x = value * factor * root, 0 where the value is NaN: not observed.
  template <typename Real>
  static void finish(const Real* from, int count, double factor, const double* root,
                     double* x) {
    if (count == CHUNK) {
      for (int v = 0; v < CHUNK; v += WIDTH) {
        const Vec value = load(from + v);
        put(x + v, (value == value ? value : all(0.0)) * (factor * distsep::at(root + v)));
      }
      return;
    }
    for (int l = 0; l < count; ++l) {
      const double value = from[l];
      x[l] = (value == value ? value : 0.0) * (factor * root[l]);
    }
    std::fill(x + count, x + CHUNK, 0.0);
  }

  static Vec load(const double* p) { return distsep::at(p); }

  static Vec load(const float* p) {
    typedef float Half __attribute__((vector_size(32)));
    Half x;
    std::memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, Vec);
  }

  void mix(const double* white, double* x) const {
    for (int r = 0; r < m_.nrow; ++r)
      for (int v = 0; v < CHUNK; v += WIDTH) {
        Vec y = all(0.0);
        for (int k = 0; k < m_.nrow; ++k)
          y += all(white[r * m_.nrow + k]) * distsep::at(raw_.get() + k * CHUNK + v);
        put(x + r * CHUNK + v, y);
      }
  }

  const Whitened& m_;
  Scratch raw_;
  long at_[CHUNK];
  int group_[CHUNK];
};

}  // namespace distsep
