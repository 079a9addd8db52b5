// Value and gradient of every tile, where each sample has its own variances.
#pragma once

#include "factor.hpp"

namespace distsep {

// Samples in chunks: one run of memory for the rows of a chunk.
struct Weighted : Terms {
  const double *d, *w, *t;  // (block, chunk, row or template, lane); w null: whitened
  const double* A;          // (pool, row, comp)
  const double* dA;         // (pool, entry, row)
  const int64_t* places;    // kind and column of each entry: comp, then regional
  int nrow, ncomp, ntemplate, nentry, nkind, ncolumn, nlane;

  int kind(int entry) const { return static_cast<int>(places[2 * entry]); }
  int column(int entry) const { return static_cast<int>(places[2 * entry + 1]); }
  // The global term of a regional column.
  int term(int column) const { return nglobal - ncolumn + column; }
  bool moves(int column) const {
    for (int e = 0; e < nentry; ++e)
      if (places[2 * e + 1] == column) return true;
    return false;
  }
};

// The gradient is -sum of dA . (N^-1 r s^T): N^-1 r s^T is summed over the lanes first.
// Whitened samples have an orthonormal A.
template <int C>
class ValueGradient {
  static constexpr int NT = C * (C + 1) / 2;
  enum Kind { PLAIN, FLAT, WHITE };

 public:
  explicit ValueGradient(const Weighted& p)
      : p_(p),
        wide_(C + p.ntemplate),
        first_moves_(p.moves(0)),
        model_(scratch(p.nrow * p.ntemplate)),
        data_(scratch(p.ntemplate ? p.nrow * CHUNK : 0)),
        residual_(scratch(p.w ? 0 : p.nrow * CHUNK)),
        G_(scratch(p.nrow * wide_ * WIDTH)) {}

  // out: value, then the gradient by each kind and global term.
  void operator()(long pool, long first, long nchunk, double* out) {
    if (!p_.w)
      tile<WHITE>(pool, first, nchunk, out);
    else if (flat(pool))
      tile<FLAT>(pool, first, nchunk, out);
    else
      tile<PLAIN>(pool, first, nchunk, out);
  }

 private:
  // Whether the first column of A is 1 and stays so, as that of the CMB: products with
  // it are left out, and no bit changes.
  bool flat(long pool) const {
    const double* A = p_.A + pool * p_.nrow * C;
    int f = 0;
    while (f < p_.nrow && A[f * C] == 1.0) ++f;
    return f == p_.nrow && !first_moves_;
  }

  template <Kind K>
  void tile(long pool, long first, long nchunk, double* out) {
    const double* A = p_.A + pool * p_.nrow * C;
    p_.model(pool, p_.nrow, p_.ntemplate, model_.get());
    // A vector at a time: of so few numbers `memset` is slow, and so is what follows.
    for (int f = 0; f < p_.nrow; ++f)
      for (int c = K == FLAT; c < wide_; ++c)
        put(G_.get() + (f * wide_ + c) * WIDTH, all(0.0));
    Vec value = all(0.0);
    for (long c = first; c < first + nchunk; ++c) {
      if (c == first + nchunk - 1) {
        foresee(p_.dA + pool * p_.nrow * p_.nentry, p_.nrow * p_.nentry);
        foresee(A + p_.nrow * C, p_.nrow * C);  // of the next pool, in all likelihood
      }
      value += chunk<K>(A, c);
    }
    out[0] = 0.5 * sum(value);
    gradient(pool, out + 1);
  }

  // Have a table in cache before it is needed.
  static void foresee(const double* table, long size) {
    for (long k = 0; k < size; k += WIDTH) __builtin_prefetch(table + k);
  }

  template <Kind K>
  inline __attribute__((always_inline)) Vec chunk(const double* A, long c) {
    const int n = p_.nlane, nt = p_.ntemplate;
    const double* d = p_.d + c * p_.nrow * n;
    const double* w = K == WHITE ? nullptr : p_.w + c * p_.nrow * n;
    const double* t = p_.t + c * nt * n;
    if (nt) {
      for (int f = 0; f < p_.nrow; ++f)
        for (int v = 0; v < n; v += WIDTH) {
          Vec x = at(d + f * n + v);
          for (int k = 0; k < nt; ++k) x -= all(model_[f * nt + k]) * at(t + k * n + v);
          put(data_.get() + f * n + v, x);
        }
      d = data_.get();
    }
    Vec chi2 = all(0.0);
    int v = 0;
    for (; v + 2 * WIDTH <= n; v += 2 * WIDTH) {
      if constexpr (K == WHITE)
        white<2>(A, d, t, v, chi2);
      else
        lanes<K, 2>(A, d, w, t, v, chi2);
    }
    for (; v < n; v += WIDTH) {
      if constexpr (K == WHITE)
        white<1>(A, d, t, v, chi2);
      else
        lanes<K, 1>(A, d, w, t, v, chi2);
    }
    return chi2;
  }

  // Amplitudes and weighted residuals of U vectors of lanes. No sample is fetched
  // ahead: a processor foresees two runs of memory that are read from end to end.
  template <Kind K, int U>
  inline __attribute__((always_inline)) void lanes(const double* A, const double* d,
                                                   const double* w, const double* t,
                                                   int v, Vec& chi2) {
    const int n = p_.nlane;
    Vec m[NT][U], s[C][U];
    for (int u = 0; u < U; ++u) {
      for (int k = 0; k < NT; ++k) m[k][u] = all(0.0);
      for (int k = 0; k < C; ++k) s[k][u] = all(0.0);
    }
    for (int f = 0; f < p_.nrow; ++f)
      for (int u = 0; u < U; ++u) {
        const int at_lane = f * n + v + u * WIDTH;
        const Vec weight = at(w + at_lane), x = at(d + at_lane);
        for (int i = 0, k = 0; i < C; ++i) {
          const Vec wa = K == FLAT && !i ? weight : all(A[f * C + i]) * weight;
          for (int j = 0; j <= i; ++j, ++k)
            m[k][u] += K == FLAT && !j ? wa : all(A[f * C + j]) * wa;
          s[i][u] += wa * x;
        }
      }
    for (int u = 0; u < U; ++u) {
      Vec x[C], lower[NT];
      for (int k = 0; k < NT; ++k) lower[k] = m[k][u];
      for (int c = 0; c < C; ++c) x[c] = s[c][u];
      Factor<C, Vec>(lower).solve(x);
      for (int c = 0; c < C; ++c) s[c][u] = x[c];
    }
    for (int f = 0; f < p_.nrow; ++f) {
      Vec wr[U];
      for (int u = 0; u < U; ++u) {
        const int at_lane = f * n + v + u * WIDTH;
        Vec r = at(d + at_lane);
        for (int c = 0; c < C; ++c)
          r -= K == FLAT && !c ? s[c][u] : all(A[f * C + c]) * s[c][u];
        wr[u] = at(w + at_lane) * r;
        chi2 += wr[u] * r;
      }
      collect<K, U>(f, wr, s, t + v);
    }
  }

  // The same of whitened samples, once refined: it removes what rounding left along A.
  template <int U>
  void white(const double* A, const double* d, const double* t, int v, Vec& chi2) {
    const int n = p_.nlane;
    double* kept = residual_.get();
    Vec z[C][U], more[C][U];
    project<C, U>(A, p_.nrow, d + v, n, z, more, [=](int f, int u, Vec r) {
      put(kept + (f * U + u) * WIDTH, r);
    });
    for (int c = 0; c < C; ++c)
      for (int u = 0; u < U; ++u) z[c][u] += more[c][u];
    for (int f = 0; f < p_.nrow; ++f) {
      Vec r[U];
      for (int u = 0; u < U; ++u) {
        r[u] = at(kept + (f * U + u) * WIDTH);
        for (int c = 0; c < C; ++c) r[u] -= all(A[f * C + c]) * more[c][u];
        chi2 += r[u] * r[u];
      }
      collect<WHITE, U>(f, r, z, t + v);
    }
  }

  // Add N^-1 r of one row times the amplitudes, and times the templates.
  template <Kind K, int U>
  inline __attribute__((always_inline)) void collect(int f, const Vec* wr,
                                                     const Vec (*s)[U], const double* t) {
    double* to = G_.get() + f * wide_ * WIDTH;
    for (int c = K == FLAT ? 1 : 0; c < C; ++c) {
      Vec g = at(to + c * WIDTH);
      for (int u = 0; u < U; ++u) g += wr[u] * s[c][u];
      put(to + c * WIDTH, g);
    }
    for (int k = 0; k < p_.ntemplate; ++k) {
      Vec g = at(to + (C + k) * WIDTH);
      for (int u = 0; u < U; ++u) g += wr[u] * at(t + k * p_.nlane + u * WIDTH);
      put(to + (C + k) * WIDTH, g);
    }
  }

  // From sums over lanes to the gradient: -dA . G, and -phi . (N^-1 r t).
  void gradient(long pool, double* out) const {
    const double* dA = p_.dA + pool * p_.nentry * p_.nrow;
    std::fill_n(out, p_.nkind, 0.0);
    for (int e = 0; e < p_.nentry; ++e, dA += p_.nrow) {
      const int c = p_.column(e), g = p_.term(c);
      out[p_.kind(e)] -= c < C ? along(dA, c)
                               : along(dA, C + static_cast<int>(p_.use[g])) *
                                     p_.alpha[pool * p_.nglobal + g];
    }
    for (int g = 0; g < p_.nglobal; ++g) {
      const double* phi = p_.phi + (pool * p_.nglobal + g) * p_.nrow;
      out[p_.nkind + g] = -along(phi, C + static_cast<int>(p_.use[g]));
    }
  }

  double along(const double* slope, int column) const {
    Vec total = all(0.0);
    for (int f = 0; f < p_.nrow; ++f)
      total += all(slope[f]) * at(G_.get() + (f * wide_ + column) * WIDTH);
    return sum(total);
  }

  const Weighted& p_;
  int wide_;
  bool first_moves_;
  Scratch model_, data_, residual_, G_;
};

}  // namespace distsep
