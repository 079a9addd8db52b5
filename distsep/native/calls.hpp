// What the XLA calls of processors and of GPUs have in common: checks of shapes.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace distsep {

using Numbers = xla::ffi::Span<const int64_t>;

inline xla::ffi::Error wrong(const char* what) {
  return xla::ffi::Error(xla::ffi::ErrorCode::kInvalidArgument,
                         std::string("distsep: ") + what);
}

// Call `body` with a number of components that is known when it is compiled.
template <typename Body>
xla::ffi::Error for_components(int n, Body body) {
  switch (n) {
    case 1: return body.template operator()<1>();
    case 2: return body.template operator()<2>();
    case 3: return body.template operator()<3>();
    case 4: return body.template operator()<4>();
    case 5: return body.template operator()<5>();
    case 6: return body.template operator()<6>();
    default: return wrong("one to six amplitudes per sample");
  }
}

// Whether an array has this shape; -1 stands for any length.
template <typename Array>
bool is(const Array& x, std::initializer_list<int64_t> shape) {
  const auto s = x.dimensions();
  return s.size() == shape.size() &&
         std::equal(s.begin(), s.end(), shape.begin(),
                    [](int64_t a, int64_t b) { return a == b || b == -1; });
}

inline bool all_below(Numbers x, int64_t n) {
  return std::all_of(x.begin(), x.end(), [&](int64_t k) { return 0 <= k && k < n; });
}

// What the caller knows beforehand: the places (kind, column) of the entries of dA, the
// numbers of kinds and columns, the template of each global term.
struct Known {
  Numbers slopes;
  int64_t nkind, ncolumn;
  Numbers use;
};

template <typename Binding>
auto with_known(Binding binding) {
  return std::move(binding)
      .template Attr<Numbers>("slopes")
      .template Attr<int64_t>("nkind")
      .template Attr<int64_t>("ncolumn")
      .template Attr<Numbers>("use");
}

// Whether derivatives (pool, entry, row) fit A and their places: `order` kinds, column.
template <typename Array>
bool are_entries(const Array& derivative, Numbers places, size_t order, const Array& A,
                 const Known& known) {
  const auto s = A.dimensions();
  if (!is(derivative, {s[0], -1, s[1]})) return false;
  if (places.size() != (order + 1) * derivative.dimensions()[1]) return false;
  for (size_t k = 0; k < places.size(); ++k) {
    const int64_t most = k % (order + 1) == order ? known.ncolumn : known.nkind;
    if (places[k] < 0 || places[k] >= most) return false;
  }
  return true;
}

// What is wrong with the tables of samples of so many rows and templates, or null.
template <typename Array>
const char* mistake(int64_t nrow, int64_t ntemplate, const Array& A, const Array& dA,
                    const Array& phi, const Array& alpha, const Known& known) {
  if (!is(A, {-1, nrow, -1})) return "A has the rows of d";
  const int64_t npool = A.dimensions()[0], ncomp = A.dimensions()[2];
  if (known.ncolumn < ncomp || !are_entries(dA, known.slopes, 1, A, known))
    return "dA has the rows and columns of A";
  if (!is(phi, {npool, -1, nrow})) return "phi has the rows of d";
  const int64_t nglobal = phi.dimensions()[1];
  if (!is(alpha, {npool, nglobal})) return "alpha is of the terms of phi";
  if (static_cast<int64_t>(known.use.size()) != nglobal ||
      !all_below(known.use, ntemplate))
    return "each global term has a template";
  if (known.ncolumn - ncomp > nglobal) return "regional columns are global terms";
  return nullptr;
}

}  // namespace distsep
