// Pages of memory, where the system lets one choose.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace distsep {

// New memory that will be written: on large pages, if it is large. A hint: the system
// clears and maps small ones one by one, which takes longer than filling them.
inline void on_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr size_t LARGE = 1 << 22;
  if (bytes < LARGE) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto from = reinterpret_cast<uintptr_t>(memory), to = from + bytes;
  const uintptr_t first = (from + page - 1) / page * page, last = to / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace distsep
