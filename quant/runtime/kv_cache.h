// The paged KV cache: reference-counted blocks of 16 tokens and the sequences that use them.
#ifndef QUANTMILL_QUANT_RUNTIME_KV_CACHE_H_
#define QUANTMILL_QUANT_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace quantmill {

// Hands out physical blocks 0 .. blocks - 1, lowest free one first. A block may be shared by
// several sequences (a common prefix); it is free when its count falls to 0. Not thread-safe.
class BlockAllocator {
 public:
  explicit BlockAllocator(int64_t blocks);

  int64_t total() const { return static_cast<int64_t>(references_.size()); }
  int64_t free() const { return free_count_; }
  int32_t references(int32_t block) const;

  // A block with one reference. Throws Error(kEnvironment) when none is free: the hard limit.
  int32_t Allocate();
  void Share(int32_t block);    // one more reference
  void Release(int32_t block);  // one less

 private:
  std::vector<int32_t> references_;
  std::vector<int32_t> free_list_;  // a min-heap, so that block ids do not depend on history alone
  int64_t free_count_ = 0;
};

// Blocks, their contents, and the operations that keep both in step.
class KvCache {
 public:
  KvCache(Backend& backend, Exec& exec, const KvShape& shape);

  KvStore& store() { return *store_; }
  BlockAllocator& allocator() { return allocator_; }

 private:
  friend class KvSequence;
  Backend& backend_;
  Exec& exec_;
  BlockAllocator allocator_;
  std::unique_ptr<KvStore> store_;
};

// The cached positions of one sequence. Move-only; gives its blocks back when destroyed. The cache
// must outlive it.
class KvSequence {
 public:
  explicit KvSequence(KvCache& cache) : cache_(&cache) {}
  KvSequence(KvSequence&& other) noexcept;
  KvSequence& operator=(KvSequence&& other) noexcept;
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;
  ~KvSequence() { Clear(); }

  int64_t length() const { return length_; }
  std::span<const int32_t> block_table() const { return blocks_; }

  // Makes room for `tokens` more positions, counts them as present, and returns the step whose
  // forward fills them (its rows begin at first_row; its block table lives as long as this sequence
  // is not changed). A shared last block is copied first (copy on write). When the blocks do not
  // suffice it throws Error(kEnvironment) and changes nothing.
  SequenceStep Append(int64_t tokens, int64_t first_row);
  // Forgets positions from `length` on (speculative tokens that were rejected).
  void Truncate(int64_t length);
  // A second sequence with the same contents, sharing all blocks.
  KvSequence Fork() const;
  void Clear() { Truncate(0); }

 private:
  KvCache* cache_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_KV_CACHE_H_
