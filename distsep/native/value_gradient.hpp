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
};

// The gradient is -sum of dA . (N^-1 r s^T). Where dA has few entries, as for laws with a
// few parameters, they are applied lane by lane; else N^-1 r s^T is summed over the lanes
// first. Whitened samples have an orthonormal A.
template <int C>
class ValueGradient {
  static constexpr int NT = C * (C + 1) / 2;
  static constexpr int FEW = 4, MANY = -1;
  enum Kind { PLAIN, FLAT, WHITE };

 public:
  explicit ValueGradient(const Weighted& p)
      : p_(p),
        products_(scratch(p.nrow * NT)),
        model_(scratch(p.nrow * p.ntemplate)),
        data_(scratch(p.ntemplate ? p.nrow * CHUNK : 0)),
        weighted_(scratch(p.nrow * CHUNK)),
        slopes_(scratch(p.nrow * FEW)),
        sums_(scratch(p.nrow * (C + p.ntemplate) * WIDTH)),
        G_(scratch(p.nrow * (C + p.ntemplate))) {}

  // out: value, then the gradient by each kind and global term.
  void operator()(long pool, long first, long nchunk, double* out) {
    if (!p_.w) return tile<MANY, WHITE>(pool, first, nchunk, out);
    if (p_.ntemplate || p_.nentry > FEW)
      return tile<MANY, PLAIN>(pool, first, nchunk, out);
    const double* dA = p_.dA + pool * p_.nentry * p_.nrow;
    for (int e = 0; e < p_.nentry; ++e)
      for (int f = 0; f < p_.nrow; ++f) slopes_[f * FEW + e] = *dA++;
    if (p_.nentry == 0) return tile<0, PLAIN>(pool, first, nchunk, out);
    if (flat(pool))
      few<FLAT>(pool, first, nchunk, out);
    else
      few<PLAIN>(pool, first, nchunk, out);
  }

 private:
  template <Kind K>
  void few(long pool, long first, long nchunk, double* out) {
    if (p_.nentry == 1) return tile<1, K>(pool, first, nchunk, out);
    if (p_.nentry == 2) return tile<2, K>(pool, first, nchunk, out);
    if (p_.nentry == 3) return tile<3, K>(pool, first, nchunk, out);
    tile<4, K>(pool, first, nchunk, out);
  }

  // Whether the first column of A is 1, as that of the CMB: products with it are left
  // out, and no bit changes.
  bool flat(long pool) const {
    const double* A = p_.A + pool * p_.nrow * C;
    int f = 0;
    while (f < p_.nrow && A[f * C] == 1.0) ++f;
    return f == p_.nrow;
  }

  template <int E, Kind K>
  void tile(long pool, long first, long nchunk, double* out) {
    const double* A = p_.A + pool * p_.nrow * C;
    for (int f = 0, k = 0; K != WHITE && f < p_.nrow; ++f)
      for (int i = 0; i < C; ++i)
        for (int j = 0; j <= i; ++j) products_[k++] = A[f * C + i] * A[f * C + j];
    if constexpr (E == MANY) {
      p_.model(pool, p_.nrow, p_.ntemplate, model_.get());
      std::fill_n(sums_.get(), p_.nrow * (C + p_.ntemplate) * WIDTH, 0.0);
    }
    Vec value = all(0.0);
    for (int e = 0; e < FEW; ++e) along_[e] = all(0.0);
    for (long c = first; c < first + nchunk; ++c) value += chunk<E, K>(A, c);
    out[0] = 0.5 * sum(value);
    if constexpr (E == MANY) return finish(pool, out + 1);
    std::fill_n(out + 1, p_.nkind, 0.0);
    for (int e = 0; e < E; ++e) out[1 + p_.kind(e)] -= sum(along_[e]);
  }

  template <int E, Kind K>
  Vec chunk(const double* A, long c) {
    const int n = p_.nlane, nt = p_.ntemplate;
    const double* d = p_.d + c * p_.nrow * n;
    const double* w = K == WHITE ? nullptr : p_.w + c * p_.nrow * n;
    const double* t = p_.t + c * nt * n;
    const double* seen = d;  // what is fetched ahead
    if (nt) {
      for (int f = 0; f < p_.nrow; ++f)
        for (int v = 0; v < n; v += WIDTH) {
          Vec x = at(d + f * n + v);
          for (int k = 0; k < nt; ++k) x -= all(model_[f * nt + k]) * at(t + k * n + v);
          put(data_.get() + f * n + v, x);
        }
      d = data_.get();
    }
    Vec chi2 = all(0.0), s[C][NVEC];
    int v = 0;
    for (; v + 2 * WIDTH <= n; v += 2 * WIDTH) {
      if constexpr (K == WHITE)
        white<2>(A, d, v, s, chi2);
      else
        lanes<E, K, 2>(A, d, w, seen, v, s, chi2);
    }
    for (; v < n; v += WIDTH) {
      if constexpr (K == WHITE)
        white<1>(A, d, v, s, chi2);
      else
        lanes<E, PLAIN, 1>(A, d, w, seen, v, s, chi2);
    }
    if constexpr (E == MANY) collect(s, t);
    return chi2;
  }

  // Amplitudes and weighted residuals of U vectors of lanes.
  template <int E, Kind K, int U>
  inline __attribute__((always_inline)) void lanes(const double* A, const double* d,
                                                   const double* w, const double* seen,
                                                   int v, Vec (*s)[NVEC], Vec& chi2) {
    const int n = p_.nlane;
    // The next chunk, from its beginning to its end while this one is read.
    const long ahead = static_cast<long>(p_.nrow) * (n + v);
    Vec m[NT][U], b[C][U];
    for (int u = 0; u < U; ++u) {
      for (int k = 0; k < NT; ++k) m[k][u] = all(0.0);
      for (int k = 0; k < C; ++k) b[k][u] = all(0.0);
    }
    for (int f = 0; f < p_.nrow; ++f) {
      Vec weight[U], wd[U];
      for (int u = 0; u < U; ++u) {
        __builtin_prefetch(w + ahead + (f * U + u) * WIDTH, 0, 2);
        __builtin_prefetch(seen + ahead + (f * U + u) * WIDTH, 0, 2);
        weight[u] = at(w + f * n + v + u * WIDTH);
        wd[u] = weight[u] * at(d + f * n + v + u * WIDTH);
      }
      for (int k = 0; k < NT; ++k)
        for (int u = 0; u < U; ++u)
          m[k][u] += K == FLAT && !k ? weight[u] : all(products_[f * NT + k]) * weight[u];
      for (int k = 0; k < C; ++k)
        for (int u = 0; u < U; ++u)
          b[k][u] += K == FLAT && !k ? wd[u] : all(A[f * C + k]) * wd[u];
    }
    for (int u = 0; u < U; ++u) {
      Vec x[C], lower[NT];
      for (int k = 0; k < NT; ++k) lower[k] = m[k][u];
      for (int c = 0; c < C; ++c) x[c] = b[c][u];
      Factor<C>(lower).solve(x);
      for (int c = 0; c < C; ++c) s[c][v / WIDTH + u] = x[c];
    }
    constexpr int NE = E > 0 ? E : 0;
    Vec slope[NE + 1][U];
    for (int e = 0; e < NE; ++e)
      for (int u = 0; u < U; ++u) slope[e][u] = all(0.0);
    for (int f = 0; f < p_.nrow; ++f)
      for (int u = 0; u < U; ++u) {
        const int at_lane = f * n + v + u * WIDTH;
        Vec r = at(d + at_lane);
        for (int c = 0; c < C; ++c) {
          const Vec x = s[c][v / WIDTH + u];
          r -= K == FLAT && !c ? x : all(A[f * C + c]) * x;
        }
        const Vec wr = at(w + at_lane) * r;
        chi2 += wr * r;
        for (int e = 0; e < NE; ++e) slope[e][u] += all(slopes_[f * FEW + e]) * wr;
        if constexpr (E == MANY) put(weighted_.get() + at_lane, wr);
      }
    for (int e = 0; e < NE; ++e)
      for (int u = 0; u < U; ++u)
        along_[e] += slope[e][u] * s[p_.column(e)][v / WIDTH + u];
  }

  // The same of whitened samples, once refined: it removes what rounding left along A.
  template <int U>
  void white(const double* A, const double* d, int v, Vec (*s)[NVEC], Vec& chi2) {
    const int n = p_.nlane;
    double* kept = weighted_.get() + v;
    Vec z[C][U], more[C][U];
    project<C, U>(A, p_.nrow, d + v, n, z, more,
                  [=](int f, int u, Vec r) { put(kept + f * n + u * WIDTH, r); });
    for (int f = 0; f < p_.nrow; ++f)
      for (int u = 0; u < U; ++u) {
        Vec r = at(kept + f * n + u * WIDTH);
        for (int c = 0; c < C; ++c) r -= all(A[f * C + c]) * more[c][u];
        chi2 += r * r;
        put(kept + f * n + u * WIDTH, r);
      }
    for (int c = 0; c < C; ++c)
      for (int u = 0; u < U; ++u) s[c][v / WIDTH + u] = z[c][u] + more[c][u];
  }

  // Add N^-1 r times the amplitudes and the templates of a chunk.
  void collect(Vec (*s)[NVEC], const double* t) {
    constexpr int F = C <= 4 ? 4 : 2;  // as many sums as fit into registers
    int f = 0;
    for (; f + F <= p_.nrow; f += F) collect_rows<F>(f, s);
    for (; f < p_.nrow; ++f) collect_rows<1>(f, s);
    const int n = p_.nlane, nt = p_.ntemplate;
    double* more = sums_.get() + p_.nrow * C * WIDTH;
    for (f = 0; f < p_.nrow; ++f)
      for (int k = 0; k < nt; ++k) {
        Vec g = at(more + (f * nt + k) * WIDTH);
        for (int v = 0; v < n; v += WIDTH)
          g += at(weighted_.get() + f * n + v) * at(t + k * n + v);
        put(more + (f * nt + k) * WIDTH, g);
      }
  }

  template <int F>
  void collect_rows(int f, Vec (*s)[NVEC]) {
    const int n = p_.nlane;
    double* to = sums_.get() + f * C * WIDTH;
    Vec g[F][C];
    for (int a = 0; a < F; ++a)
      for (int c = 0; c < C; ++c) g[a][c] = at(to + (a * C + c) * WIDTH);
    for (int v = 0; v < n / WIDTH; ++v)
      for (int a = 0; a < F; ++a) {
        const Vec x = at(weighted_.get() + (f + a) * n + v * WIDTH);
        for (int c = 0; c < C; ++c) g[a][c] += x * s[c][v];
      }
    for (int a = 0; a < F; ++a)
      for (int c = 0; c < C; ++c) put(to + (a * C + c) * WIDTH, g[a][c]);
  }

  // From sums over lanes to the gradient: -dA . G, and -phi . (N^-1 r t).
  void finish(long pool, double* gradient) {
    const int nt = p_.ntemplate, size = p_.nrow * (C + nt);
    for (int k = 0; k < size; ++k) G_[k] = sum(at(sums_.get() + k * WIDTH));
    const double* Gt = G_.get() + p_.nrow * C;
    const double* dA = p_.dA + pool * p_.nentry * p_.nrow;
    std::fill_n(gradient, p_.nkind, 0.0);
    for (int e = 0; e < p_.nentry; ++e, dA += p_.nrow) {
      const int c = p_.column(e), g = p_.term(c);
      double total = 0.0;
      for (int f = 0; f < p_.nrow; ++f)
        total += dA[f] * (c < C ? G_[f * C + c] : Gt[f * nt + p_.use[g]]);
      gradient[p_.kind(e)] -= c < C ? total : total * p_.alpha[pool * p_.nglobal + g];
    }
    for (int g = 0; g < p_.nglobal; ++g) {
      const double* phi = p_.phi + (pool * p_.nglobal + g) * p_.nrow;
      double total = 0.0;
      for (int f = 0; f < p_.nrow; ++f) total += phi[f] * Gt[f * nt + p_.use[g]];
      gradient[p_.nkind + g] = -total;
    }
  }

  const Weighted& p_;
  Scratch products_, model_, data_, weighted_, slopes_, sums_, G_;
  Vec along_[FEW];  // each entry's part of the gradient
};

}  // namespace distsep
