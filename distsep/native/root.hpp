// Root of the sum of x x^T of every tile: the exact reduction of `inference/reduce.py`.
#pragma once

#include <algorithm>
#include <limits>

#include "lanes.hpp"

namespace distsep {

// A triangle T from a part of the lanes makes y = T^-1 x nearly white; the Gram matrix
// of y, taken in one sweep over all lanes, is then well conditioned and its Cholesky
// factor loses nothing. At low signal to noise x itself is white enough. Where a part
// does not stand for the whole, once more.
class Root {
 public:
  explicit Root(const Whitened& m)
      : m_(m),
        fetch_(m),
        n_(m.entries()),
        padded_(m.padded()),
        x_(scratch(padded_ * CHUNK)),
        y_(scratch(padded_ * CHUNK)),
        root_(scratch(CHUNK)),
        sums_(scratch(blocks() * 16 * WIDTH)),
        gram_(scratch(n_ * n_)),
        T_(scratch(n_ * n_)),
        L_(scratch(n_ * n_)),
        work_(scratch(n_ * n_)),
        inverse_(scratch(padded_ * padded_)) {}

  void operator()(long b, long tile, double* out) {
    const long size = m_.nlane / m_.ntile, nchunk = (size + CHUNK - 1) / CHUNK;
    if (size <= n_) return reflect(b, tile, size, out);
    const long stride = std::max(1L, nchunk / SAMPLED);
    gather(b, tile, size, stride, false);
    const long lanes = std::min(size, SAMPLED * CHUNK);
    double scale[MOST];
    for (int i = 0; i < n_; ++i) scale[i] = root_of(gram_[i * n_ + i]);
    begin();
    bool white = extend(scale, 11.0 * n_ * (n_ + lanes) * EPS) > 10 * WELL;
    if (white) begin();
    bool seen[MOST];
    for (int again = 0; again < 3; ++again) {
      if (!white) invert();
      gather(b, tile, size, 1, !white);
      for (int i = 0; i < n_; ++i) {
        scale[i] = root_of(gram_[i * n_ + i]);
        // A row of zeros stays one: a band that was not observed, an empty template.
        if (again == 0) seen[i] = gram_[i * n_ + i] > 0;
      }
      // The pivots of the correlations are 1 where y is white.
      if (extend(scale, n_ * EPS) > WELL) break;
      white = false;
    }
    for (int i = 0; i < n_; ++i)
      for (int j = 0; j < n_; ++j) out[i * n_ + j] = seen[j] ? T_[j * n_ + i] : 0.0;
  }

  static constexpr int MOST = 64;  // entries of a sample

 private:
  static constexpr long SAMPLED = 8;       // chunks that the first triangle is from
  static constexpr double WELL = 1e-3;     // smallest pivot of correlations that will do
  static constexpr double EPS = std::numeric_limits<double>::epsilon();

  int blocks() const { return (padded_ / 4) * (padded_ / 4 + 1) / 2; }

  // Of no more lanes than entries: T by Householder's reflections from the right.
  void reflect(long b, long tile, long size, double* out) {
    static_assert(MOST <= CHUNK);
    fetch_(b, tile, tile * size, static_cast<int>(size), x_.get(), root_.get());
    std::memset(out, 0, sizeof(double) * n_ * n_);
    for (int k = 0; k < size; ++k) {
      double* v = x_.get() + k * CHUNK;
      double squares = 0.0;
      for (int l = k; l < size; ++l) squares += v[l] * v[l];
      const double norm = std::copysign(std::sqrt(squares), v[k]);
      out[k * n_ + k] = -norm;
      v[k] += norm;
      for (int i = k + 1; i < n_; ++i) {
        double *x = x_.get() + i * CHUNK, along = 0.0;
        for (int l = k; l < size; ++l) along += v[l] * x[l];
        if (norm != 0.0) along /= norm * v[k];
        for (int l = k; l < size; ++l) x[l] -= along * v[l];
        out[k * n_ + i] = x[k];
      }
    }
  }

  // T = 1.
  void begin() {
    std::memset(T_.get(), 0, sizeof(double) * n_ * n_);
    for (int i = 0; i < n_; ++i) T_[i * n_ + i] = 1.0;
  }

  static double root_of(double x) { return x > 0 ? std::sqrt(x) : 1.0; }

  // Gram matrix of every `stride`th chunk of a tile, of x or of T^-1 x.
  void gather(long b, long tile, long size, long stride, bool whitened) {
    std::memset(sums_.get(), 0, sizeof(double) * blocks() * 16 * WIDTH);
    for (long lane = 0; lane < size; lane += CHUNK * stride) {
      const int count = static_cast<int>(std::min<long>(CHUNK, size - lane));
      fetch_(b, tile, tile * size + lane, count, x_.get(), root_.get());
      if (whitened) multiply(x_.get());
      square(whitened ? y_.get() : x_.get(), fetch_.ahead(CHUNK * stride));
    }
    const double* from = sums_.get();
    for (int i = 0; i < padded_; i += 4)
      for (int j = 0; j <= i; j += 4)
        for (int a = 0; a < 4; ++a)
          for (int c = 0; c < 4; ++c, from += WIDTH) {
            if (i + a >= n_ || j + c >= n_ || (i == j && c > a)) continue;
            const double g = sum(at(from));
            gram_[(i + a) * n_ + j + c] = gram_[(j + c) * n_ + i + a] = g;
          }
  }

  // y = T^-1 x, four rows of two vectors at a time.
  void multiply(const double* x) {
    for (int i = 0; i < padded_; i += 4)
      for (int v = 0; v < CHUNK; v += 2 * WIDTH) {
        Vec y[4][2];
        for (int a = 0; a < 4; ++a) y[a][0] = y[a][1] = all(0.0);
        for (int j = 0; j < i + 4; ++j) {
          const Vec x0 = at(x + j * CHUNK + v), x1 = at(x + j * CHUNK + v + WIDTH);
          for (int a = 0; a < 4; ++a) {
            const Vec t = all(inverse_[(i + a) * padded_ + j]);
            y[a][0] += t * x0;
            y[a][1] += t * x1;
          }
        }
        for (int a = 0; a < 4; ++a) {
          put(y_.get() + (i + a) * CHUNK + v, y[a][0]);
          put(y_.get() + (i + a) * CHUNK + v + WIDTH, y[a][1]);
        }
      }
  }

  // Add y y^T, four rows by four at a time; meanwhile the next chunk is fetched.
  void square(const double* y, Ahead next) {
    double* to = sums_.get();
    for (int i = 0; i < padded_; i += 4) {
      const double* own = y + i * CHUNK;
      for (int j = 0; j < i; j += 4, to += 16 * WIDTH)
        add_product<false>(own, y + j * CHUNK, to, next);
      add_product<true>(own, own, to, next);
      to += 16 * WIDTH;
    }
  }

  // Add x y^T, of four rows each; of x x^T the lower triangle.
  template <bool Same>
  static void add_product(const double* x, const double* y, double* to, Ahead& next) {
    const auto width = [](int a) { return Same ? a + 1 : 4; };
    Vec g[4][4];
    for (int a = 0; a < 4; ++a)
      for (int c = 0; c < width(a); ++c) g[a][c] = at(to + (4 * a + c) * WIDTH);
    for (int v = 0; v < CHUNK; v += WIDTH) {
      next.one(), next.one();
      Vec left[4];
      for (int a = 0; a < 4; ++a) left[a] = at(x + a * CHUNK + v);
      for (int c = 0; c < 4; ++c) {
        const Vec right = Same ? left[c] : at(y + c * CHUNK + v);
        for (int a = Same ? c : 0; a < 4; ++a) g[a][c] += left[a] * right;
      }
    }
    for (int a = 0; a < 4; ++a)
      for (int c = 0; c < width(a); ++c) put(to + (4 * a + c) * WIDTH, g[a][c]);
  }

  // T <- T diag(scale) L, L L^T the scaled Gram matrix plus a shift; smallest pivot of
  // the rows that have one: of a row that depends on those before only rounding is left.
  double extend(const double* scale, double shift) {
    double least = 1.0, pivot[MOST];
    for (int j = 0; j < n_; ++j)
      for (int i = j; i < n_; ++i) {
        double x = gram_[i * n_ + j] / (scale[i] * scale[j]) + (i == j ? shift : 0.0);
        for (int k = 0; k < j; ++k) x -= L_[i * n_ + k] * L_[j * n_ + k];
        if (i == j) {
          pivot[j] = x;
          L_[j * n_ + j] = std::sqrt(std::max(x, shift));
        } else {
          L_[i * n_ + j] = x / L_[j * n_ + j];
        }
      }
    for (int i = 0; i < n_; ++i)
      for (int j = 0; j < n_; ++j) {
        double x = 0.0;
        for (int k = j; k <= i; ++k) x += T_[i * n_ + k] * scale[k] * L_[k * n_ + j];
        work_[i * n_ + j] = x;
      }
    std::swap(T_, work_);
    for (int j = 0; j < n_; ++j) {
      double squares = 0.0;
      for (int k = 0; k <= j; ++k) squares += T_[j * n_ + k] * T_[j * n_ + k];
      // No smaller, for its inverse would enlarge rounding in the rows that follow.
      const double rounding = 64 * n_ * EPS * std::sqrt(squares);
      if (T_[j * n_ + j] < rounding)
        T_[j * n_ + j] = rounding;
      else if (gram_[j * n_ + j] > 0)  // a row of zeros has no say
        least = std::min(least, pivot[j]);
    }
    return least;
  }

  void invert() {
    for (int j = 0; j < n_; ++j)
      for (int i = j; i < n_; ++i) {
        double x = i == j ? 1.0 : 0.0;
        for (int k = j; k < i; ++k) x -= T_[i * n_ + k] * inverse_[k * padded_ + j];
        inverse_[i * padded_ + j] = x / T_[i * n_ + i];
      }
  }

  const Whitened& m_;
  Fetch fetch_;
  int n_, padded_;
  Scratch x_, y_, root_, sums_, gram_, T_, L_, work_, inverse_;
};

}  // namespace distsep
