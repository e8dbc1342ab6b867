// The paged store of keys and values of the cuda backend, and its layout on the device.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_KV_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_KV_H_

#include <cstdint>

#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

// n elements that move in one access.
template <typename T, int n>
struct alignas(n * sizeof(T)) Pack {
  T x[n];
};
using Quad = Pack<float, 4>;

// One (layer, physical block, kv head) holds
//   K as [16][row_bytes], then V: a row is one token's head, padded with zeros to whole quads of
//     elements, so that a quad is one aligned access and neighbouring threads read neighbouring
//     quads;
//   kInt8, kInt4: [16] F32 of K, [16] F32 of V: code * scale is the element.
// kInt4 codes lie in nibbles, + 8: byte i of a row holds element 2i in its low half and 2i + 1 in
// its high half. Where head_dim is no multiple of 4, a store is larger than KvBlockBytes says.
// Slots that no token was stored to hold anything, NaN included.
// Sizes are in bytes, made once on the host: kernels have little room for their arithmetic.
struct KvLayout {
  KvFormat format;
  int kv_heads;
  int head_dim;
  int quads;  // of a row
  int row;
  int part;  // keys of a head, or its values
  int head;
  int64_t block;

  constexpr bool HasTokenScales() const {
    return format == KvFormat::kInt8 || format == KvFormat::kInt4;
  }
};

// One layer of a store, as kernels take it.
struct KvLayer {
  KvLayout layout;
  uint8_t* blocks;
  const float* key_scales;  // of kFp8: [kv_heads]
  const float* value_scales;

  // One token's head of keys (part 0) or values (part 1).
  __device__ uint8_t* Row(int64_t block, int head, int part, int slot) const {
    return blocks + block * layout.block + (head * layout.head + part * layout.part) +
           slot * layout.row;
  }
  // Its scale, where the layout has token scales.
  __device__ float* Scale(int64_t block, int head, int part, int slot) const {
    constexpr int kSlots = kKvBlockTokens;
    uint8_t* scales = blocks + block * layout.block + (head * layout.head + 2 * layout.part);
    return reinterpret_cast<float*>(scales) + (part * kSlots + slot);
  }
};

// Four elements of a row as they are stored, and their values before a product with their scale.
template <KvFormat format>
struct KvQuad;
template <>
struct KvQuad<KvFormat::kF32> {
  Quad stored;
  __device__ Quad Values() const { return stored; }
};
template <>
struct KvQuad<KvFormat::kBF16> {
  Pack<BF16, 4> stored;
  __device__ float Value(int i) const { return ToFloat(stored.x[i]); }
  __device__ Quad Values() const { return {{Value(0), Value(1), Value(2), Value(3)}}; }
};
template <>
struct KvQuad<KvFormat::kFp8> {
  Pack<uint8_t, 4> stored;
  __device__ float Value(int i) const { return FromE4M3(stored.x[i]); }
  __device__ Quad Values() const { return {{Value(0), Value(1), Value(2), Value(3)}}; }
};
template <>
struct KvQuad<KvFormat::kInt8> {
  Pack<int8_t, 4> stored;
  __device__ float Value(int i) const { return static_cast<float>(stored.x[i]); }
  __device__ Quad Values() const { return {{Value(0), Value(1), Value(2), Value(3)}}; }
};
template <>
struct KvQuad<KvFormat::kInt4> {
  Pack<uint8_t, 2> stored;
  __device__ float Value(int i) const {
    return static_cast<float>((stored.x[i / 2] >> (i % 2 * 4) & 15) - 8);
  }
  __device__ Quad Values() const { return {{Value(0), Value(1), Value(2), Value(3)}}; }
};

class CudaKvStore final : public KvStore {
 public:
  CudaKvStore(Exec& exec, const CudaMemory& memory, const KvShape& shape);
  const KvShape& shape() const override { return shape_; }
  int64_t bytes() const override { return memory_.bytes(); }
  KvLayer Layer(int64_t layer) const;
  // Layers lie one after another, and blocks within a layer.
  int64_t layer_bytes() const { return shape_.blocks * layout_.block; }
  const KvLayout& layout() const { return layout_; }

 private:
  KvShape shape_;
  KvLayout layout_;
  Tensor memory_;  // U8 [1, bytes]
  Tensor scales_;  // F32 [2, layers * kv_heads], of keys and values; kFp8 alone
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_KV_H_
