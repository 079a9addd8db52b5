// Value, gradient, Fisher matrix and Hessian of every tile, each sample with variances.
#pragma once

#include "value_gradient.hpp"

namespace distsep {

// Second derivatives of A.
struct Bends {
  const double* d2A;      // (pool, entry, row)
  const int64_t* places;  // two kinds in ascending order and column of each entry
  int nentry;
};

template <int C>
class Curvature {
  static constexpr int NT = C * (C + 1) / 2;

 public:
  Curvature(const Weighted& p, const Bends& bends)
      : p_(p),
        bends_(bends),
        n_(p.nkind + p.nglobal),
        wide_(C + p.ntemplate),
        model_(scratch(p.nrow * p.ntemplate)),
        lane_(scratch(3 * p.nrow * WIDTH)),
        y_(scratch(2 * n_ * p.nrow * WIDTH)),
        half_(scratch(2 * n_ * C * WIDTH)),
        sums_(scratch((n_ + 2 * n_ * n_) * WIDTH)),
        G_(scratch(p.nrow * wide_ * WIDTH)),
        G_sum_(scratch(p.nrow * wide_)) {}

  // out: value, gradient, Fisher matrix, Hessian.
  void operator()(long pool, long first, long nchunk, double* out) {
    A_ = p_.A + pool * p_.nrow * C;
    dA_ = p_.dA + pool * p_.nentry * p_.nrow;
    phi_ = p_.phi + pool * p_.nglobal * p_.nrow;
    alpha_ = p_.alpha + pool * p_.nglobal;
    p_.model(pool, p_.nrow, p_.ntemplate, model_.get());
    std::fill_n(sums_.get(), (n_ + 2 * n_ * n_) * WIDTH, 0.0);
    std::fill_n(G_.get(), p_.nrow * wide_ * WIDTH, 0.0);
    Vec value = all(0.0);
    for (long c = first; c < first + nchunk; ++c)
      for (int v = 0; v < p_.nlane; v += WIDTH) value += lanes(c, v);
    finish(pool, 0.5 * sum(value), out);
  }

 private:
  Vec A(int f, int c) const { return all(A_[f * C + c]); }

  Vec lanes(long chunk, int v) {
    const int nrow = p_.nrow, n = p_.nlane, nt = p_.ntemplate;
    const double* t = p_.t + chunk * nt * n + v;
    double *d = lane_.get(), *w = d + nrow * WIDTH, *Nr = w + nrow * WIDTH;
    Vec m[NT], s[C], chi2 = all(0.0);
    for (int k = 0; k < NT; ++k) m[k] = all(0.0);
    for (int c = 0; c < C; ++c) s[c] = all(0.0);
    for (int f = 0; f < nrow; ++f) {
      const long from = (chunk * nrow + f) * n + v;
      // The next chunk, from its beginning to its end while this one is read.
      const long ahead = (chunk + 1) * nrow * n + nrow * v + f * WIDTH;
      __builtin_prefetch(p_.d + ahead, 0, 2);
      if (p_.w) __builtin_prefetch(p_.w + ahead, 0, 2);
      Vec x = at(p_.d + from);
      const Vec weight = p_.w ? at(p_.w + from) : all(1.0);
      for (int k = 0; k < nt; ++k) x -= all(model_[f * nt + k]) * at(t + k * n);
      put(d + f * WIDTH, x);
      put(w + f * WIDTH, weight);
      for (int i = 0, k = 0; i < C; ++i) {
        for (int j = 0; j <= i; ++j, ++k) m[k] += A(f, i) * A(f, j) * weight;
        s[i] += A(f, i) * weight * x;
      }
    }
    const Factor<C, Vec> factor(m);
    factor.solve(s);
    Vec more[C];  // once refined: what rounding left of the signal along A
    for (int c = 0; c < C; ++c) more[c] = all(0.0);
    for (int f = 0; f < nrow; ++f) {
      const Vec r = residual(d, f, s), Nr_f = at(w + f * WIDTH) * r;
      for (int c = 0; c < C; ++c) more[c] += A(f, c) * Nr_f;
      put(d + f * WIDTH, r);
    }
    factor.solve(more);
    for (int c = 0; c < C; ++c) s[c] += more[c];
    for (int f = 0; f < nrow; ++f) {
      // Of the residual there was: taken from the data it would be rounded again.
      const Vec r = residual(d, f, more), Nr_f = at(w + f * WIDTH) * r;
      chi2 += r * Nr_f;
      put(Nr + f * WIDTH, Nr_f);
      double* G = G_.get() + f * wide_ * WIDTH;
      for (int c = 0; c < C; ++c) put(G + c * WIDTH, at(G + c * WIDTH) + Nr_f * s[c]);
      G += C * WIDTH;
      for (int k = 0; k < nt; ++k)
        put(G + k * WIDTH, at(G + k * WIDTH) + Nr_f * at(t + k * n));
    }
    directions(factor, s, t, w, Nr);
    products(factor);
    return chi2;
  }

  Vec residual(const double* d, int f, const Vec* s) const {
    Vec r = at(d + f * WIDTH);
    for (int c = 0; c < C; ++c) r -= A(f, c) * s[c];
    return r;
  }

  // How the model moves with each parameter, less what the amplitudes absorb.
  void directions(const Factor<C, Vec>& factor, const Vec* s, const double* t,
                  const double* w, const double* Nr) {
    const int nrow = p_.nrow, n = p_.nlane;
    for (int i = 0; i < n_; ++i) {
      double *y = y_.get() + i * nrow * WIDTH, *Ny = y + n_ * nrow * WIDTH;
      Vec v[C], u[C], x[C], gradient = all(0.0);
      for (int c = 0; c < C; ++c) v[c] = u[c] = all(0.0);
      std::fill_n(y, nrow * WIDTH, 0.0);
      // Adds a column times its amplitude; gives the column's product with N^-1 r.
      const auto move = [&](const double* column, Vec amplitude) {
        Vec along = all(0.0);
        for (int f = 0; f < nrow; ++f) {
          put(y + f * WIDTH, at(y + f * WIDTH) + all(column[f]) * amplitude);
          along += all(column[f]) * at(Nr + f * WIDTH);
        }
        gradient += along * amplitude;
        return along;
      };
      if (i < p_.nkind) {
        for (int e = 0; e < p_.nentry; ++e) {
          if (p_.kind(e) != i) continue;
          const int c = p_.column(e), g = p_.term(c);
          if (c < C)
            u[c] += move(dA_ + e * nrow, s[c]);
          else
            move(dA_ + e * nrow, alpha_[g] * at(t + p_.use[g] * n));
        }
      } else {
        const int g = i - p_.nkind;
        move(phi_ + g * nrow, at(t + p_.use[g] * n));
      }
      for (int f = 0; f < nrow; ++f) {
        const Vec Ny_f = at(w + f * WIDTH) * at(y + f * WIDTH);
        for (int c = 0; c < C; ++c) v[c] += A(f, c) * Ny_f;
      }
      for (int c = 0; c < C; ++c) x[c] = v[c];
      factor.solve(x);
      for (int f = 0; f < nrow; ++f) {
        Vec rest = at(y + f * WIDTH);
        for (int c = 0; c < C; ++c) rest -= A(f, c) * x[c];
        put(y + f * WIDTH, rest);
        put(Ny + f * WIDTH, at(w + f * WIDTH) * rest);
      }
      factor.half(v);
      factor.half(u);
      std::memcpy(half_.get() + i * C * WIDTH, v, sizeof v);
      std::memcpy(half_.get() + (n_ + i) * C * WIDTH, u, sizeof u);
      double* to = sums_.get() + i * WIDTH;
      put(to, at(to) - gradient);
    }
  }

  void products(const Factor<C, Vec>& factor) {
    const int nrow = p_.nrow;
    double *fisher = sums_.get() + n_ * WIDTH, *cross = fisher + n_ * n_ * WIDTH;
    for (int i = 0; i < n_; ++i)
      for (int j = 0; j <= i; ++j) {
        const double *y = y_.get() + i * nrow * WIDTH;
        const double *Ny = y_.get() + (n_ + j) * nrow * WIDTH;
        Vec F = all(0.0);
        for (int f = 0; f < nrow; ++f) F += at(y + f * WIDTH) * at(Ny + f * WIDTH);
        double* to = fisher + (i * n_ + j) * WIDTH;
        put(to, at(to) + F);
        Vec v[2][C], u[2][C];
        for (int a = 0; a < 2; ++a) {
          const int k = a ? j : i;
          std::memcpy(v[a], half_.get() + k * C * WIDTH, sizeof v[a]);
          std::memcpy(u[a], half_.get() + (n_ + k) * C * WIDTH, sizeof u[a]);
        }
        to = cross + (i * n_ + j) * WIDTH;
        put(to, at(to) + factor.dot(u[0], v[1]) + factor.dot(v[0], u[1]) -
                    factor.dot(u[0], u[1]));
      }
  }

  void finish(long pool, double value, double* out) {
    const int nrow = p_.nrow, nk = p_.nkind;
    double *gradient = out + 1, *F = gradient + n_, *H = F + n_ * n_;
    out[0] = value;
    for (int i = 0; i < n_; ++i) gradient[i] = sum(at(sums_.get() + i * WIDTH));
    const double *fisher = sums_.get() + n_ * WIDTH, *cross = fisher + n_ * n_ * WIDTH;
    for (int i = 0; i < n_; ++i)
      for (int j = 0; j <= i; ++j) {
        const int k = (i * n_ + j) * WIDTH;
        F[i * n_ + j] = F[j * n_ + i] = sum(at(fisher + k));
        H[i * n_ + j] = H[j * n_ + i] = F[i * n_ + j] + sum(at(cross + k));
      }
    for (int k = 0; k < nrow * wide_; ++k) G_sum_[k] = sum(at(G_.get() + k * WIDTH));
    // r^T N^-1 times the second derivatives of A s + F alpha.
    const double* d2A = bends_.d2A + pool * bends_.nentry * nrow;
    for (int e = 0; e < bends_.nentry; ++e, d2A += nrow) {
      const int64_t* place = bends_.places + 3 * e;
      const int i = static_cast<int>(place[0]), j = static_cast<int>(place[1]);
      const int c = static_cast<int>(place[2]);
      const double bend = along(d2A, c) * (c < C ? 1.0 : alpha_[p_.term(c)]);
      H[i * n_ + j] -= bend;
      if (i != j) H[j * n_ + i] -= bend;
    }
    // A regional column moves with beta and is multiplied by its coefficient.
    for (int e = 0; e < p_.nentry; ++e) {
      const int i = p_.kind(e), c = p_.column(e), g = nk + p_.term(c);
      if (c < C) continue;
      const double mixed = along(dA_ + e * nrow, c);
      H[i * n_ + g] -= mixed;
      H[g * n_ + i] -= mixed;
    }
  }

  // Product of a column's derivative with N^-1 r times its amplitudes, or its template.
  double along(const double* slope, int c) const {
    const int k = c < C ? c : C + static_cast<int>(p_.use[p_.term(c)]);
    double total = 0.0;
    for (int f = 0; f < p_.nrow; ++f) total += slope[f] * G_sum_[f * wide_ + k];
    return total;
  }

  const Weighted& p_;
  const Bends& bends_;
  int n_, wide_;
  const double *A_ = nullptr, *dA_ = nullptr, *phi_ = nullptr, *alpha_ = nullptr;
  Scratch model_, lane_, y_, half_, sums_, G_, G_sum_;
};

}  // namespace distsep
