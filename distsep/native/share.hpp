// Pieces of work shared out over the threads of XLA.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>

#include "xla/ffi/api/ffi.h"

namespace distsep {

// Do all of [0, n), items of so many lanes each: every thread makes a worker of its own
// and calls it on one run of them after another, `worker(first, last)`. The calling
// thread does its share, and threads that come too late find nothing to do: no one waits
// for a thread to start.
template <typename Make>
void share(xla::ffi::ThreadPool& pool, long n, long lanes, const Make& make) {
  constexpr long RUNS = 16;      // of each thread, where there are as many
  constexpr long FEWEST = 4096;  // lanes of a thread: what takes longer than waking it
  const long most = std::min(n, 1 + n * lanes / FEWEST);
  const long threads = std::min<long>(pool.num_threads(), most);
  struct State {
    std::atomic<long> next{0}, left;
  };
  auto state = std::make_shared<State>();
  state->left = n;
  const long grain = threads > 1 ? (n + threads * RUNS - 1) / (threads * RUNS) : n;
  // What `make` holds is there as long as work is left.
  auto work = [state, n, grain, &make] {
    long first = state->next.fetch_add(grain);
    if (first >= n) return;
    auto worker = make();
    for (; first < n; first = state->next.fetch_add(grain)) {
      const long last = std::min(first + grain, n);
      worker(first, last);
      if (state->left.fetch_sub(last - first) == last - first) state->left.notify_one();
    }
  };
  for (long k = 1; k < threads; ++k) pool.Schedule(decltype(work)(work));
  work();
  for (long left; (left = state->left.load()) != 0;) state->left.wait(left);
}

}  // namespace distsep
