// The kernels as XLA calls: shapes are read and checked here, and here only.
//
// Compiled once for each level of instructions (see build.py); every block goes through
// the same code wherever it is, so that no bit depends on ranks or devices.
#include "amplitudes.hpp"
#include "calls.hpp"
#include "curvature.hpp"
#include "pages.hpp"
#include "root.hpp"
#include "share.hpp"
#include "value_gradient.hpp"

namespace ffi = xla::ffi;
using distsep::is, distsep::Known, distsep::Numbers, distsep::wrong;
using distsep::Weighted;
using distsep::Weights;
using distsep::Whitened;

namespace {

using F64 = ffi::Buffer<ffi::F64>;
using S32 = ffi::Buffer<ffi::S32>;
using Result64 = ffi::ResultBuffer<ffi::F64>;
using Threads = ffi::ThreadPool;

// d, w (block, chunk, row, lane), t (block, chunk, template, lane). Without w the
// samples are whitened and A is orthonormal.
Weighted weighted(F64& d, F64& w, F64& t, F64& A, F64& dA, F64& phi, F64& alpha,
                  const Known& known) {
  const auto s = d.dimensions();
  Weighted p;
  p.d = d.typed_data(), p.t = t.typed_data();
  p.w = w.element_count() ? w.typed_data() : nullptr;
  p.A = A.typed_data(), p.dA = dA.typed_data();
  p.phi = phi.typed_data(), p.alpha = alpha.typed_data(), p.use = known.use.begin();
  p.nrow = s[2], p.nlane = s[3], p.ncomp = A.dimensions()[2];
  p.ntemplate = t.dimensions()[2], p.nglobal = phi.dimensions()[1];
  p.places = known.slopes.begin(), p.nentry = dA.dimensions()[1];
  p.nkind = known.nkind, p.ncolumn = known.ncolumn;
  return p;
}

// One row of sums for every tile; pool (block, tile).
template <typename Make>
void over_tiles(Threads& threads, F64& d, S32& pool, Result64& out, Make make) {
  const auto s = d.dimensions();
  const long ntile = pool.dimensions()[1], nchunk = ntile ? s[1] / ntile : 0;
  const long nout = out->dimensions()[2];
  const int32_t* of = pool.typed_data();
  double* to = out->typed_data();
  distsep::share(threads, s[0] * ntile, nchunk * s[3], [=] {
    return [=, kernel = make()](long first, long last) mutable {
      for (long k = first; k < last; ++k)
        kernel(of[k], k * nchunk, nchunk, to + k * nout);
    };
  });
}

// What is wrong with the arrays of `weighted`, or null.
const char* mistake(F64& d, F64& w, F64& t, S32& pool, F64& A, F64& dA, F64& phi,
                    F64& alpha, const Known& known, Result64& out, bool second) {
  if (!is(d, {-1, -1, -1, -1})) return "d has four axes";
  const auto s = d.dimensions();
  if (!is(w, {0, 0, 0, 0}) && !is(w, {s[0], s[1], s[2], s[3]})) return "w is like d";
  if (!is(t, {s[0], s[1], -1, s[3]})) return "t is like d, but for its rows";
  if (s[3] % distsep::WIDTH || s[3] > distsep::CHUNK) return "lanes of a chunk";
  if (!is(pool, {s[0], -1})) return "pool has the blocks of d";
  const int64_t ntile = pool.dimensions()[1];
  if (ntile ? s[1] % ntile : s[1]) return "chunks make whole tiles";
  const char* tables =
      distsep::mistake<F64>(s[2], t.dimensions()[2], A, dA, phi, alpha, known);
  if (tables) return tables;
  const int64_t n = known.nkind + phi.dimensions()[1];
  const int64_t nout = second ? 1 + n + 2 * n * n : 1 + n;
  return is(*out, {s[0], ntile, nout}) ? nullptr : "out";
}

ffi::Error value_gradient(Threads threads, F64 d, F64 w, F64 t, S32 pool, F64 A, F64 dA,
                          F64 phi, F64 alpha, Numbers slopes, int64_t nkind,
                          int64_t ncolumn, Numbers use, Result64 out) {
  const Known known{slopes, nkind, ncolumn, use};
  const char* what = mistake(d, w, t, pool, A, dA, phi, alpha, known, out, false);
  if (what) return wrong(what);
  const Weighted p = weighted(d, w, t, A, dA, phi, alpha, known);
  return distsep::for_components(p.ncomp, [&]<int C>() {
    over_tiles(threads, d, pool, out, [&p] { return distsep::ValueGradient<C>(p); });
    return ffi::Error::Success();
  });
}

ffi::Error curvature(Threads threads, F64 d, F64 w, F64 t, S32 pool, F64 A, F64 dA,
                     F64 phi, F64 alpha, F64 d2A, Numbers slopes, int64_t nkind,
                     int64_t ncolumn, Numbers use, Numbers bends, Result64 out) {
  const Known known{slopes, nkind, ncolumn, use};
  const char* what = mistake(d, w, t, pool, A, dA, phi, alpha, known, out, true);
  if (!what && !distsep::are_entries(d2A, bends, 2, A, known)) what = "d2A is like dA";
  if (what) return wrong(what);
  const Weighted p = weighted(d, w, t, A, dA, phi, alpha, known);
  const distsep::Bends second{d2A.typed_data(), bends.begin(),
                              static_cast<int>(d2A.dimensions()[1])};
  return distsep::for_components(p.ncomp, [&]<int C>() {
    over_tiles(threads, d, pool, out,
               [&] { return distsep::Curvature<C>(p, second); });
    return ffi::Error::Success();
  });
}

// The maps of `pack`; what is not there has no elements.
Whitened maps(ffi::AnyBuffer& d, F64& t, F64& weight, S32& index, S32& classes,
              F64& white, F64& scale, int64_t nblock, int64_t ntemplate) {
  Whitened m;
  m.d = d.untyped_data(), m.single = d.element_type() == ffi::F32;
  m.t = t.typed_data();
  m.weight = weight.element_count() ? weight.typed_data() : nullptr;
  m.index = index.element_count() ? index.typed_data() : nullptr;
  m.classes = classes.typed_data();
  m.white = white.typed_data(), m.scale = scale.typed_data();
  m.nrow = white.dimensions()[1], m.dense = white.dimensions().size() == 3;
  m.ngroup = scale.dimensions()[0], m.ntemplate = ntemplate;
  m.npix = d.dimensions()[1], m.block = nblock ? m.npix / nblock : 0;
  m.ntile = classes.dimensions()[1];
  m.nlane = m.index ? index.dimensions()[1] : m.ngroup * m.block;
  return m;
}

// What is wrong with the arrays of `maps`, or null.
const char* mistake(ffi::AnyBuffer& d, F64& t, F64& weight, S32& index, S32& classes,
                    F64& white, F64& scale, int64_t ntemplate) {
  if (d.element_type() != ffi::F64 && d.element_type() != ffi::F32) return "type of d";
  if (!is(d, {-1, -1}) || !is(classes, {-1, -1}) || !is(scale, {-1}))
    return "d, classes and scale have 2, 2 and 1 axes";
  const int64_t npix = d.dimensions()[1], ngroup = scale.dimensions()[0];
  const int64_t nblock = classes.dimensions()[0], ntile = classes.dimensions()[1];
  if (white.dimensions().size() < 2) return "white has two axes or three";
  const int64_t nrow = white.dimensions()[1];
  if (!is(white, {-1, nrow}) && !is(white, {-1, nrow, nrow})) return "shape of white";
  if (!is(d, {nrow * ngroup, npix})) return "d has the rows of white, of each group";
  if (!is(t, {ntemplate * ngroup, npix})) return "t has the pixels of d";
  if (weight.element_count() && !is(weight, {1, npix})) return "weight is of pixels";
  if (nblock ? npix % nblock : npix) return "pixels make whole blocks";
  int64_t nlane = nblock ? ngroup * (npix / nblock) : 0;
  if (index.element_count()) {
    if (!is(index, {nblock, -1})) return "index has the blocks of classes";
    nlane = index.dimensions()[1];
  }
  if (ntile ? nlane % ntile : nlane) return "lanes make whole tiles";
  return nullptr;
}

ffi::Error root(Threads threads, ffi::AnyBuffer d, F64 t, F64 weight, S32 index,
                S32 classes, F64 white, F64 scale, int64_t ntemplate, Result64 out) {
  const char* what = mistake(d, t, weight, index, classes, white, scale, ntemplate);
  if (what) return wrong(what);
  const long nblock = classes.dimensions()[0];
  const Whitened m =
      maps(d, t, weight, index, classes, white, scale, nblock, ntemplate);
  const long n = m.entries() * m.entries();
  if (m.entries() > distsep::Root::MOST) return wrong("entries of a sample");
  if (!is(*out, {nblock, m.ntile, n})) return wrong("out");
  double* to = out->typed_data();
  const long lanes = m.ntile ? m.nlane / m.ntile : 0;
  distsep::share(threads, nblock * m.ntile, lanes, [&m, n, to] {
    return [&m, n, to, kernel = distsep::Root(m)](long first, long last) mutable {
      for (long k = first; k < last; ++k)
        kernel(k / m.ntile, k % m.ntile, to + k * n);
    };
  });
  return ffi::Error::Success();
}

ffi::Error amplitudes(Threads threads, ffi::AnyBuffer d, F64 t, F64 weight, S32 index,
                      S32 classes, F64 white, F64 scale, S32 pool, F64 Q, F64 Rinv,
                      F64 phi, F64 alpha, Numbers use, int64_t ntemplate, Result64 out,
                      Result64 chi2) {
  const char* what = mistake(d, t, weight, index, classes, white, scale, ntemplate);
  if (what) return wrong(what);
  const long nblock = classes.dimensions()[0];
  const Whitened m =
      maps(d, t, weight, index, classes, white, scale, nblock, ntemplate);
  Weights w;
  w.Q = Q.typed_data(), w.Rinv = Rinv.typed_data(), w.phi = phi.typed_data();
  w.alpha = alpha.typed_data(), w.use = use.begin(), w.pool = pool.typed_data();
  if (!is(Q, {-1, m.nrow, -1})) return wrong("Q has the rows of white");
  const int64_t npool = Q.dimensions()[0], ncomp = Q.dimensions()[2];
  if (!is(Rinv, {npool, ncomp, ncomp})) return wrong("Rinv is of the columns of Q");
  if (!is(phi, {npool, -1, m.nrow})) return wrong("phi has the rows of Q");
  w.nglobal = phi.dimensions()[1];
  if (!is(alpha, {npool, w.nglobal})) return wrong("alpha is of the terms of phi");
  if (static_cast<int64_t>(use.size()) != w.nglobal ||
      !distsep::all_below(use, ntemplate))
    return wrong("each global term has a template");
  if (!is(pool, {nblock, m.ntile})) return wrong("pool is like classes");
  if (!is(*out, {ncomp + 1, m.ngroup, m.npix}) || !is(*chi2, {nblock}))
    return wrong("out");
  double *maps_to = out->typed_data(), *chi2_to = chi2->typed_data();
  distsep::on_large_pages(maps_to, out->size_bytes());
  return distsep::for_components(ncomp, [&]<int C>() {
    distsep::share(threads, nblock, m.nlane, [=, &m, &w] {
      return [=, kernel = distsep::Amplitudes<C>(m, w)](long first, long last) mutable {
        for (long b = first; b < last; ++b) chi2_to[b] = kernel(b, maps_to);
      };
    });
    return ffi::Error::Success();
  });
}

}  // namespace

extern "C" const char* distsep_jaxlib() { return DISTSEP_JAXLIB; }

extern "C" int distsep_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") &&
                  __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? 4 : v3 ? 3 : 0;
#else
  return 0;
#endif
}

namespace {

// d, w, t, pool, A, dA, phi, alpha.
auto of_samples() {
  return ffi::Ffi::Bind()
      .Ctx<Threads>()
      .Arg<F64>().Arg<F64>().Arg<F64>().Arg<S32>()
      .Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>();
}

// d, t, weight, index, classes, white, scale.
auto of_maps() {
  return ffi::Ffi::Bind()
      .Ctx<Threads>()
      .Arg<ffi::AnyBuffer>().Arg<F64>().Arg<F64>()
      .Arg<S32>().Arg<S32>().Arg<F64>().Arg<F64>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_value_gradient, value_gradient,
                              distsep::with_known(of_samples()).Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_curvature, curvature,
                              distsep::with_known(of_samples().Arg<F64>())
                                  .Attr<Numbers>("bends")
                                  .Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_root, root,
                              of_maps().Attr<int64_t>("ntemplate").Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_amplitudes, amplitudes,
                              of_maps()
                                  .Arg<S32>().Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>()
                                  .Attr<Numbers>("use")
                                  .Attr<int64_t>("ntemplate")
                                  .Ret<F64>()
                                  .Ret<F64>());
