// The kernels as XLA calls: shapes are read and checked here, and here only.
//
// Compiled once for each level of instructions (see build.py); every block goes through
// the same code wherever it is, so that no bit depends on ranks or devices.
#include <string>

#include "amplitudes.hpp"
#include "curvature.hpp"
#include "root.hpp"
#include "value_gradient.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using distsep::Weighted;
using distsep::Weights;
using distsep::Whitened;

namespace {

using F64 = ffi::Buffer<ffi::F64>;
using S32 = ffi::Buffer<ffi::S32>;
using Result64 = ffi::ResultBuffer<ffi::F64>;
using Use = ffi::Span<const int64_t>;

ffi::Error wrong(const char* what) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, std::string("distsep: ") + what);
}

template <template <int> class Kernel, typename Body>
ffi::Error for_components(int n, Body body) {
  switch (n) {
    case 1: body.template operator()<Kernel<1>>(); break;
    case 2: body.template operator()<Kernel<2>>(); break;
    case 3: body.template operator()<Kernel<3>>(); break;
    case 4: body.template operator()<Kernel<4>>(); break;
    case 5: body.template operator()<Kernel<5>>(); break;
    case 6: body.template operator()<Kernel<6>>(); break;
    default: return wrong("one to six amplitudes per sample");
  }
  return ffi::Error::Success();
}

// d, w (block, chunk, row, lane), t (block, chunk, template, lane).
Weighted weighted(F64& d, F64& w, F64& t, F64& A, F64& dA, F64& phi, F64& alpha, Use use) {
  const auto s = d.dimensions();
  Weighted p;
  p.d = d.typed_data(), p.w = w.typed_data(), p.t = t.typed_data();
  p.A = A.typed_data(), p.dA = dA.typed_data();
  p.phi = phi.typed_data(), p.alpha = alpha.typed_data(), p.use = use.begin();
  p.nrow = s[2], p.nlane = s[3], p.ncomp = A.dimensions()[2];
  p.ntemplate = t.dimensions()[2], p.nkind = dA.dimensions()[1];
  p.ncolumn = dA.dimensions()[3], p.nglobal = phi.dimensions()[1];
  return p;
}

// One row of sums for every tile; pool (block, tile).
template <typename Kernel>
void over_tiles(Kernel& kernel, F64& d, S32& pool, Result64& out) {
  const auto s = d.dimensions();
  const long ntile = pool.dimensions()[1], nchunk = ntile ? s[1] / ntile : 0;
  const long nout = out->dimensions()[2];
  for (long k = 0; k < s[0] * ntile; ++k)
    kernel(pool.typed_data()[k], k * nchunk, nchunk, out->typed_data() + k * nout);
}

bool whole_vectors(const Weighted& p) {
  return p.nlane % distsep::WIDTH == 0 && p.nlane <= distsep::CHUNK;
}

ffi::Error value_gradient(F64 d, F64 w, F64 t, S32 pool, F64 A, F64 dA, F64 phi,
                          F64 alpha, Use use, Result64 out) {
  const Weighted p = weighted(d, w, t, A, dA, phi, alpha, use);
  if (!whole_vectors(p)) return wrong("lanes");
  return for_components<distsep::ValueGradient>(p.ncomp, [&]<typename Kernel>() {
    Kernel kernel(p);
    over_tiles(kernel, d, pool, out);
  });
}

// d2A (pool, kind, kind, row, column).
ffi::Error curvature(F64 d, F64 w, F64 t, S32 pool, F64 A, F64 dA, F64 phi, F64 alpha,
                     F64 d2A, Use use, Result64 out) {
  const Weighted p = weighted(d, w, t, A, dA, phi, alpha, use);
  if (!whole_vectors(p)) return wrong("lanes");
  return for_components<distsep::Curvature>(p.ncomp, [&]<typename Kernel>() {
    Kernel kernel(p, d2A.typed_data());
    over_tiles(kernel, d, pool, out);
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

ffi::Error root(ffi::AnyBuffer d, F64 t, F64 weight, S32 index, S32 classes, F64 white,
                F64 scale, int64_t ntemplate, Result64 out) {
  const long nblock = classes.dimensions()[0];
  const Whitened m =
      maps(d, t, weight, index, classes, white, scale, nblock, ntemplate);
  if (m.entries() > distsep::Root::MOST) return wrong("entries of a sample");
  distsep::Root kernel(m);
  const long n = m.entries() * m.entries();
  for (long b = 0; b < nblock; ++b)
    for (long tile = 0; tile < m.ntile; ++tile)
      kernel(b, tile, out->typed_data() + (b * m.ntile + tile) * n);
  return ffi::Error::Success();
}

ffi::Error amplitudes(ffi::AnyBuffer d, F64 t, F64 weight, S32 index, S32 classes,
                      F64 white, F64 scale, S32 pool, F64 Q, F64 Rinv, F64 phi,
                      F64 alpha, Use use, int64_t ntemplate, Result64 out,
                      Result64 chi2) {
  const long nblock = classes.dimensions()[0];
  const Whitened m =
      maps(d, t, weight, index, classes, white, scale, nblock, ntemplate);
  Weights w;
  w.Q = Q.typed_data(), w.Rinv = Rinv.typed_data(), w.phi = phi.typed_data();
  w.alpha = alpha.typed_data(), w.use = use.begin(), w.pool = pool.typed_data();
  w.nglobal = phi.dimensions()[1];
  return for_components<distsep::Amplitudes>(
      Q.dimensions()[2], [&]<typename Kernel>() {
        Kernel kernel(m, w);
        for (long b = 0; b < nblock; ++b)
          chi2->typed_data()[b] = kernel(b, out->typed_data());
      });
}

}  // namespace

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
      .Arg<F64>().Arg<F64>().Arg<F64>().Arg<S32>()
      .Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>();
}

// d, t, weight, index, classes, white, scale.
auto of_maps() {
  return ffi::Ffi::Bind()
      .Arg<ffi::AnyBuffer>().Arg<F64>().Arg<F64>()
      .Arg<S32>().Arg<S32>().Arg<F64>().Arg<F64>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_value_gradient, value_gradient,
                              of_samples().Attr<Use>("use").Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_curvature, curvature,
                              of_samples().Arg<F64>().Attr<Use>("use").Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_root, root,
                              of_maps().Attr<int64_t>("ntemplate").Ret<F64>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_amplitudes, amplitudes,
                              of_maps()
                                  .Arg<S32>().Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>()
                                  .Attr<Use>("use")
                                  .Attr<int64_t>("ntemplate")
                                  .Ret<F64>()
                                  .Ret<F64>());
