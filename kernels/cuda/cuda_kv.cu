// NewKvStore, CopyKvBlock and AppendKv of the cuda backend.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_kv.h"
#include "kernels/cuda/cuda_plan.h"
#include "kernels/cuda/launch.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

KvLayout LayoutOf(const KvShape& shape) {
  Check(shape.kv_heads * shape.head_dim < INT32_MAX / 256, "NewKvStore: too many heads");
  const KvFormat format = FormatOf(shape);
  const int quad = format == KvFormat::kF32    ? 16
                   : format == KvFormat::kBF16 ? 8
                   : format == KvFormat::kInt4 ? 2
                                               : 4;
  constexpr int kSlots = kKvBlockTokens;
  KvLayout layout{};
  layout.format = format;
  layout.kv_heads = static_cast<int>(shape.kv_heads);
  layout.head_dim = static_cast<int>(shape.head_dim);
  layout.quads = (layout.head_dim + 3) / 4;
  layout.row = layout.quads * quad;
  layout.part = kSlots * layout.row;
  const int scales = layout.HasTokenScales() ? 2 * kSlots * static_cast<int>(sizeof(float)) : 0;
  layout.head = 2 * layout.part + scales;
  layout.block = int64_t{layout.kv_heads} * layout.head;
  return layout;
}

// ---- rounding one token's head (ops.h): by a warp, x in shared memory ----

// x = H x / sqrt(n), n a power of two: butterflies at distances 1, 2, 4, ...
__device__ void Rotate(SharedArray<float> x, int n, int lane) {
  for (int half = 1; half < n; half *= 2) {
    for (int pair = lane; pair < n / 2; pair += kWarp) {
      const int i = (pair & ~(half - 1)) * 2 + (pair & (half - 1));
      const float a = x[i];
      const float b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
    __syncwarp();
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(n));
  for (int i = lane; i < n; i += kWarp) {
    const float value = x[i];
    x[i] = value * scale;
  }
  __syncwarp();
}

// NaN if either is.
struct MaxOrNaN {
  __device__ float operator()(float a, float b) const { return b > a || b != b ? b : a; }
};

__device__ float AbsMaxOf(SharedArray<float> x, int n, int lane) {
  float absmax = 0;
  for (int i = lane; i < n; i += kWarp) {
    const float value = x[i];
    absmax = MaxOrNaN()(absmax, fabsf(value));
  }
  return WarpReduce(absmax, MaxOrNaN());
}

// How a value becomes a code.
struct Rounding {
  float factor;  // of integers
  float limit;
  float fp8_scale;

  __device__ int IntegerOf(float value) const {
    const float scaled = value * factor;
    if (scaled != scaled) return 0;  // its scale is NaN, or infinite
    return static_cast<int>(fminf(fmaxf(rintf(scaled), -limit), limit));
  }
};

__device__ void StoreQuad(KvFormat format, const Quad& values, const Rounding& rounding,
                          uint8_t* row, int quad) {
  switch (format) {
    case KvFormat::kF32:
      reinterpret_cast<Quad*>(row)[quad] = values;
      return;
    case KvFormat::kBF16: {
      Pack<BF16, 4> to;
      for (int i = 0; i < 4; ++i) to.x[i] = ToBF16(values.x[i]);
      reinterpret_cast<Pack<BF16, 4>*>(row)[quad] = to;
      return;
    }
    case KvFormat::kFp8: {
      Pack<uint8_t, 4> to;
      for (int i = 0; i < 4; ++i) to.x[i] = ToE4M3(values.x[i] / rounding.fp8_scale);
      reinterpret_cast<Pack<uint8_t, 4>*>(row)[quad] = to;
      return;
    }
    case KvFormat::kInt8: {
      Pack<int8_t, 4> to;
      for (int i = 0; i < 4; ++i) to.x[i] = static_cast<int8_t>(rounding.IntegerOf(values.x[i]));
      reinterpret_cast<Pack<int8_t, 4>*>(row)[quad] = to;
      return;
    }
    case KvFormat::kInt4: {
      int nibbles[4];
      for (int i = 0; i < 4; ++i) nibbles[i] = rounding.IntegerOf(values.x[i]) + 8;
      Pack<uint8_t, 2> to;
      for (int i = 0; i < 2; ++i) {
        to.x[i] = static_cast<uint8_t>(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
      }
      reinterpret_cast<Pack<uint8_t, 2>*>(row)[quad] = to;
      return;
    }
  }
}

constexpr int kWarpsOfBlock = 4;

// A warp per head of a token, of keys or values. Shared memory: the head's floats, of each warp,
// padded with zeros to whole quads.
__global__ void AppendKernel(View<const float> k, View<const float> v, const int32_t* slots,
                             KvLayer layer) {
  const KvLayout layout = layer.layout;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int padded = 4 * layout.quads;
  SharedMemory shared;
  SharedArray<float> x = shared.Take<float>(kWarpsOfBlock * padded) + warp * padded;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarpsOfBlock + warp;
  const int64_t row = item / (2 * layout.kv_heads);
  const int part = static_cast<int>(item / layout.kv_heads % 2);
  const int head = static_cast<int>(item % layout.kv_heads);
  if (row >= k.rows) return;

  const float* from = (part == 0 ? k : v).Row(row) + int64_t{head} * layout.head_dim;
  for (int i = lane; i < padded; i += kWarp) x[i] = i < layout.head_dim ? from[i] : 0.0f;
  __syncwarp();
  if (layout.format == KvFormat::kInt4) Rotate(x, layout.head_dim, lane);

  const int32_t slot = slots[row];
  constexpr int kSlots = kKvBlockTokens;
  uint8_t* to = layer.Row(slot / kSlots, head, part, slot % kSlots);
  Rounding rounding{0, layout.format == KvFormat::kInt4 ? 7.0f : 127.0f, 1};
  if (layout.HasTokenScales()) {
    const float absmax = AbsMaxOf(x, padded, lane);
    rounding.factor = absmax > 0 ? rounding.limit / absmax : 0.0f;
    if (lane == 0) *layer.Scale(slot / kSlots, head, part, slot % kSlots) = absmax / rounding.limit;
  }
  if (layout.format == KvFormat::kFp8) {
    rounding.fp8_scale = (part == 0 ? layer.key_scales : layer.value_scales)[head];
  }
  for (int quad = lane; quad < layout.quads; quad += kWarp) {
    Quad values;
    for (int i = 0; i < 4; ++i) values.x[i] = x[4 * quad + i];
    StoreQuad(layout.format, values, rounding, to, quad);
  }
}

// [2, layers * kv_heads], 1 where none are given.
Tensor ScalesOnDevice(Exec& exec, const CudaMemory& memory, const KvShape& shape) {
  const auto heads = static_cast<size_t>(shape.layers * shape.kv_heads);
  std::vector<float> all;
  for (const std::vector<float>* scales : {&shape.key_scales, &shape.value_scales}) {
    if (scales->empty()) {
      all.insert(all.end(), heads, 1.0f);
    } else {
      all.insert(all.end(), scales->begin(), scales->end());
    }
  }
  const auto cols = static_cast<int64_t>(heads);
  const int64_t bytes = 2 * cols * SizeOf(DType::kF32);
  Tensor device = memory.Allocate(DType::kF32, 2, cols);
  StreamOf(exec).CopyToDevice(device.view().data, bytes, all.data(), bytes, bytes, 1);
  return device;
}

}  // namespace

CudaKvStore::CudaKvStore(Exec& exec, const CudaMemory& memory, const KvShape& shape)
    : shape_(shape),
      layout_(LayoutOf(shape)),
      memory_(memory.Allocate(DType::kU8, 1, shape.layers * layer_bytes())),
      scales_(ScalesOnDevice(exec, memory, shape)) {}

KvLayer CudaKvStore::Layer(int64_t layer) const {
  const int64_t head = layer * shape_.kv_heads;
  return {layout_, memory_.Row<uint8_t>(0) + layer * layer_bytes(), scales_.Row<float>(0) + head,
          scales_.Row<float>(1) + head};
}

std::unique_ptr<KvStore> CudaBackend::NewKvStore(Exec& exec, const KvShape& shape) {
  CheckNewKvStore(shape);
  constexpr int64_t kMostHeadDim = 1024;  // of shared memory, here and in attention
  Check(shape.head_dim <= kMostHeadDim, "NewKvStore: heads of more than 1,024 elements");
  return std::make_unique<CudaKvStore>(exec, memory_, shape);
}

void CudaBackend::CopyKvBlock(Exec& exec, KvStore& store, int32_t from, int32_t to) {
  CheckCopyKvBlock(store.shape(), from, to);
  const auto& kv = static_cast<CudaKvStore&>(store);
  const KvShape& shape = kv.shape();
  if (from == to || shape.layers == 0) return;
  uint8_t* blocks = kv.Layer(0).blocks;
  const int64_t bytes = kv.layout().block;
  StreamOf(exec).CopyOnDevice(blocks + to * bytes, kv.layer_bytes(), blocks + from * bytes,
                              kv.layer_bytes(), bytes, shape.layers);
}

void CudaBackend::AppendKv(Exec& exec, const BatchPlan& plan, int64_t layer, ConstMatrix k,
                           ConstMatrix v, KvStore& store) {
  CheckAppendKv(plan, store.shape(), layer, k, v);
  const CudaBatchPlan& batch = PlanOf(plan);
  const auto& kv = static_cast<CudaKvStore&>(store);
  const KvShape& shape = kv.shape();
  batch.CheckBlocks(shape);
  const int64_t items = batch.tokens() * 2 * shape.kv_heads;
  const LaunchShape grid{(items + kWarpsOfBlock - 1) / kWarpsOfBlock, 1, kWarpsOfBlock * kWarp,
                         SharedBytes<float>(kWarpsOfBlock * 4 * kv.layout().quads)};
  Launch(exec, AppendKernel, grid, In<float>(k), In<float>(v), batch.arrays().slots,
         kv.Layer(layer));
}

}  // namespace quantmill::QUANTMILL_CUDA
