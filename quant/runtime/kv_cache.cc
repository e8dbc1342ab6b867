#include "quant/runtime/kv_cache.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

namespace quantmill {

BlockAllocator::BlockAllocator(int64_t blocks)
    : references_(static_cast<size_t>(blocks), 0), free_count_(blocks) {
  free_list_.reserve(static_cast<size_t>(blocks));
  for (int64_t i = 0; i < blocks; ++i) free_list_.push_back(static_cast<int32_t>(i));
  std::make_heap(free_list_.begin(), free_list_.end(), std::greater<>());
}

int32_t BlockAllocator::references(int32_t block) const {
  Check(block >= 0 && block < total(), "BlockAllocator: no such block");
  return references_[static_cast<size_t>(block)];
}

int32_t BlockAllocator::Allocate() {
  if (free_list_.empty()) {
    throw Error(ErrorCode::kEnvironment, "KV cache",
                "all " + std::to_string(total()) + " blocks of " + std::to_string(kKvBlockTokens) +
                    " tokens are in use");
  }
  std::pop_heap(free_list_.begin(), free_list_.end(), std::greater<>());
  const int32_t block = free_list_.back();
  free_list_.pop_back();
  --free_count_;
  references_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockAllocator::Share(int32_t block) {
  Check(references(block) > 0, "BlockAllocator: sharing a free block");
  ++references_[static_cast<size_t>(block)];
}

void BlockAllocator::Release(int32_t block) {
  Check(references(block) > 0, "BlockAllocator: releasing a free block");
  if (--references_[static_cast<size_t>(block)] > 0) return;
  free_list_.push_back(block);
  std::push_heap(free_list_.begin(), free_list_.end(), std::greater<>());
  ++free_count_;
}

KvCache::KvCache(Backend& backend, Exec& exec, const KvShape& shape)
    : backend_(backend),
      exec_(exec),
      allocator_(shape.blocks),
      store_(backend.NewKvStore(exec, shape)) {}

KvSequence::KvSequence(KvSequence&& other) noexcept
    : cache_(other.cache_),
      blocks_(std::exchange(other.blocks_, {})),
      length_(std::exchange(other.length_, 0)) {}

KvSequence& KvSequence::operator=(KvSequence&& other) noexcept {
  if (this != &other) {
    Clear();
    cache_ = other.cache_;
    blocks_ = std::exchange(other.blocks_, {});
    length_ = std::exchange(other.length_, 0);
  }
  return *this;
}

SequenceStep KvSequence::Append(int64_t tokens, int64_t first_row) {
  Check(tokens >= 0, "KvSequence: negative length");
  BlockAllocator& allocator = cache_->allocator_;
  const int64_t needed = (length_ + tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const int64_t added = needed - static_cast<int64_t>(blocks_.size());
  const bool writes_last = tokens > 0 && length_ % kKvBlockTokens != 0;
  const bool copies = writes_last && allocator.references(blocks_.back()) > 1;
  if (added + (copies ? 1 : 0) > allocator.free()) {
    throw Error(ErrorCode::kEnvironment, "KV cache",
                "a sequence of " + std::to_string(length_ + tokens) + " tokens needs " +
                    std::to_string(added + (copies ? 1 : 0)) + " more blocks of " +
                    std::to_string(kKvBlockTokens) + " tokens, but " +
                    std::to_string(allocator.free()) + " of " + std::to_string(allocator.total()) +
                    " are free");
  }
  if (copies) {
    const int32_t fresh = allocator.Allocate();
    cache_->backend_.CopyKvBlock(cache_->exec_, *cache_->store_, blocks_.back(), fresh);
    allocator.Release(blocks_.back());
    blocks_.back() = fresh;
  }
  for (int64_t i = 0; i < added; ++i) blocks_.push_back(allocator.Allocate());
  const SequenceStep step{first_row, tokens, length_, blocks_};
  length_ += tokens;
  return step;
}

void KvSequence::Truncate(int64_t length) {
  Check(length >= 0 && length <= length_, "KvSequence: truncating to a greater length");
  const int64_t kept = (length + kKvBlockTokens - 1) / kKvBlockTokens;
  while (static_cast<int64_t>(blocks_.size()) > kept) {
    cache_->allocator_.Release(blocks_.back());
    blocks_.pop_back();
  }
  length_ = length;
}

KvSequence KvSequence::Fork() const {
  KvSequence fork(*cache_);
  for (const int32_t block : blocks_) cache_->allocator_.Share(block);
  fork.blocks_ = blocks_;
  fork.length_ = length_;
  return fork;
}

}  // namespace quantmill
