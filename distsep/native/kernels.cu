// The kernels for GPUs as XLA calls: shapes are read and checked here, and here only.
#include <string>

#include "gpu_root.cuh"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

ffi::Error wrong(const std::string& what) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, "distsep: " + what);
}

ffi::Error started() {
  const cudaError_t code = cudaGetLastError();
  return code == cudaSuccess
             ? ffi::Error::Success()
             : ffi::Error(ffi::ErrorCode::kInternal, cudaGetErrorString(code));
}

template <int N, typename Real>
ffi::Error roots(cudaStream_t stream, const distsep::gpu::Samples<Real>& x, long ntile,
                 double* to) {
  using namespace distsep::gpu;
  if (!ntile) return ffi::Error::Success();
  constexpr int bytes = sizeof(Shared<N>);
  const cudaError_t code = cudaFuncSetAttribute(
      distsep::gpu::roots<N, Real>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (code != cudaSuccess)
    return ffi::Error(ffi::ErrorCode::kInternal, cudaGetErrorString(code));
  distsep::gpu::roots<N, Real><<<ntile, THREADS, bytes, stream>>>(x, to);
  return started();
}

// d (..., row, lane), t (..., template, lane), out (..., tile, n * n).
ffi::Error root(cudaStream_t stream, ffi::AnyBuffer d, ffi::AnyBuffer t,
                ffi::ResultBuffer<ffi::F64> out) {
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
  if (n > distsep::gpu::MOST) return wrong("entries of a sample");
  if (!ntile || nlane % ntile || (nlane / ntile) % distsep::gpu::FEWEST)
    return wrong("lanes of a tile");
  auto run = [&]<typename Real>(Real) {
    const distsep::gpu::Samples<Real> x{
        static_cast<const Real*>(d.untyped_data()),
        static_cast<const Real*>(t.untyped_data()),
        nrow, ntemplate, static_cast<int>(ntile), nlane};
    double* to = out->typed_data();
    if (n <= 16) return roots<16>(stream, x, nblock * ntile, to);
    return roots<32>(stream, x, nblock * ntile, to);
  };
  switch (d.element_type()) {
    case ffi::F64: return run(double{});
    case ffi::F32: return run(float{});
    default: return wrong("type of d");
  }
}

}  // namespace

extern "C" const char* distsep_jaxlib() { return DISTSEP_JAXLIB; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(distsep_gpu_root, root,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F64>>());
