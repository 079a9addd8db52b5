// The kernels for GPUs as XLA calls: shapes are read and checked here, and here only.
#include "calls.hpp"
#include "gpu_root.cuh"
#include "gpu_value_gradient.cuh"

namespace ffi = xla::ffi;
namespace gpu = distsep::gpu;
using distsep::is, distsep::Known, distsep::Numbers, distsep::wrong;

namespace {

using Any = ffi::AnyBuffer;
using S32 = ffi::Buffer<ffi::S32>;
using Result64 = ffi::ResultBuffer<ffi::F64>;

// Start so many thread blocks with so many bytes of shared memory.
template <typename... Arguments>
ffi::Error start(void (*kernel)(Arguments...), long blocks, int threads, long bytes,
                 cudaStream_t stream, const Arguments&... arguments) {
  if (!blocks) return ffi::Error::Success();
  cudaError_t code = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (code == cudaSuccess) {
    kernel<<<blocks, threads, bytes, stream>>>(arguments...);
    code = cudaGetLastError();
  }
  return code == cudaSuccess
             ? ffi::Error::Success()
             : ffi::Error(ffi::ErrorCode::kInternal, cudaGetErrorString(code));
}

template <typename Real>
const Real* of(const Any& x) {
  return static_cast<const Real*>(x.untyped_data());
}

// Call `body` with the type of the numbers of an array.
template <typename Body>
ffi::Error for_type(const Any& x, Body body) {
  switch (x.element_type()) {
    case ffi::F64: return body.template operator()<double>();
    case ffi::F32: return body.template operator()<float>();
    default: return wrong("type of d");
  }
}

// d (..., row, lane), t (..., template, lane), out (..., tile, n * n).
ffi::Error root(cudaStream_t stream, Any d, Any t, Result64 out) {
  const auto s = d.dimensions(), u = t.dimensions(), o = out->dimensions();
  const size_t axes = s.size();
  if (axes < 2 || u.size() != axes || o.size() != axes)
    return wrong("d, t and out have as many axes");
  if (t.element_type() != d.element_type()) return wrong("t has the type of d");
  long nblock = 1;
  for (size_t k = 0; k + 2 < axes; ++k) {
    if (u[k] != s[k] || o[k] != s[k]) return wrong("t and out have the blocks of d");
    nblock *= s[k];
  }
  const long nlane = s[axes - 1], ntile = o[axes - 2];
  const int nrow = s[axes - 2], ntemplate = u[axes - 2], n = nrow + ntemplate;
  if (u[axes - 1] != nlane) return wrong("t has the lanes of d");
  if (o[axes - 1] != static_cast<long>(n) * n) return wrong("out");
  if (n > gpu::MOST) return wrong("entries of a sample");
  if (!ntile || nlane % ntile || (nlane / ntile) % gpu::FEWEST)
    return wrong("lanes of a tile");
  return for_type(d, [&]<typename Real>() {
    const gpu::Samples<Real> x{of<Real>(d), of<Real>(t), nrow, ntemplate,
                               static_cast<int>(ntile), nlane};
    const auto with = [&]<int N>() {
      return start(gpu::roots<N, Real>, nblock * ntile, gpu::THREADS,
                   sizeof(gpu::Shared<N>), stream, x, out->typed_data());
    };
    return n <= 16 ? with.template operator()<16>() : with.template operator()<32>();
  });
}

// d, w (block, row, lane), t (block, template, lane), pool (block, tile); without w the
// samples are whitened, A is orthonormal and Rinv is there. Out (block, tile, share, sum).
ffi::Error value_gradient(cudaStream_t stream, Any d, Any w, Any t, S32 pool, Any A,
                          Any Rinv, Any dA, Any phi, Any alpha, Numbers slopes,
                          int64_t nkind, int64_t ncolumn, Numbers use, Result64 out) {
  const Known known{slopes, nkind, ncolumn, use};
  for (const Any* x : {&w, &t, &A, &Rinv, &dA, &phi, &alpha})
    if (x->element_type() != d.element_type()) return wrong("arrays have the type of d");
  if (!is(d, {-1, -1, -1})) return wrong("d has three axes");
  const auto s = d.dimensions();
  if (!is(w, {0, 0, 0}) && !is(w, {s[0], s[1], s[2]})) return wrong("w is like d");
  if (!is(t, {s[0], -1, s[2]})) return wrong("t is like d, but for its rows");
  if (!is(pool, {s[0], -1})) return wrong("pool has the blocks of d");
  const long ntile = pool.dimensions()[1], nblock = s[0], nlane = s[2];
  const char* what =
      distsep::mistake<Any>(s[1], t.dimensions()[1], A, dA, phi, alpha, known);
  if (what) return wrong(what);
  const long ncomp = A.dimensions()[2];
  if (!is(Rinv, {w.element_count() ? 0 : A.dimensions()[0], ncomp, ncomp}))
    return wrong("Rinv is of the columns of Q");
  const int nentry = dA.dimensions()[1], nglobal = phi.dimensions()[1];
  if (nentry + nglobal > gpu::MOST_SLOPES || nkind > gpu::MOST_SLOPES ||
      ncolumn > gpu::MOST_SLOPES || t.dimensions()[1] > gpu::MOST_SLOPES)
    return wrong("entries, global terms and templates");
  if (s[1] > gpu::MOST) return wrong("rows of a sample");
  if (!is(*out, {nblock, ntile, -1, 1 + nkind + nglobal})) return wrong("out");
  const long nshare = out->dimensions()[2];
  if (!ntile || !nshare || nlane % (ntile * nshare * gpu::FEWEST))
    return wrong("lanes of a share");

  const auto run = [&]<typename Real, int ROWS, int C, bool WHITE>() {
    gpu::Weighted<Real> p{of<Real>(d), WHITE ? nullptr : of<Real>(w), of<Real>(t),
                          pool.typed_data(), of<Real>(A), of<Real>(Rinv), of<Real>(dA),
                          of<Real>(phi), of<Real>(alpha)};
    p.nlane = nlane, p.nrow = s[1], p.ntemplate = t.dimensions()[1], p.ntile = ntile;
    p.nshare = nshare, p.nentry = nentry, p.nglobal = nglobal;
    p.nkind = nkind, p.ncolumn = ncolumn;
    for (int e = 0; e < nentry; ++e)
      p.kind[e] = slopes[2 * e], p.column[e] = slopes[2 * e + 1];
    for (int g = 0; g < nglobal; ++g) p.use[g] = use[g];
    return start(gpu::value_gradients<ROWS, C, WHITE, Real>, nblock * ntile * nshare,
                 gpu::WARP, gpu::Tables<ROWS, C, Real>::bytes(p), stream, p,
                 out->typed_data());
  };
  return for_type(d, [&]<typename Real>() {
    return distsep::for_components(ncomp, [&]<int C>() {
      const bool white = !w.element_count();
      if (s[1] <= 16)
        return white ? run.template operator()<Real, 16, C, true>()
                     : run.template operator()<Real, 16, C, false>();
      return white ? run.template operator()<Real, 32, C, true>()
                   : run.template operator()<Real, 32, C, false>();
    });
  });
}

}  // namespace

extern "C" const char* distsep_jaxlib() { return DISTSEP_JAXLIB; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_gpu_root, root,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<Any>().Arg<Any>()
                                  .Ret<ffi::Buffer<ffi::F64>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_gpu_value_gradient, value_gradient,
                              distsep::with_known(
                                  ffi::Ffi::Bind()
                                      .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                      .Arg<Any>().Arg<Any>().Arg<Any>().Arg<S32>()
                                      .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                                      .Arg<Any>())
                                  .Ret<ffi::Buffer<ffi::F64>>());
