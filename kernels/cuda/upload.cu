#include <algorithm>
#include <cstring>

#include "kernels/cuda/device.h"
#include "kernels/cuda/upload.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Rows of a piece to the slot, one after another.
void Gather(const std::byte* from, int64_t pitch, int64_t row_bytes, int64_t rows, std::byte* to) {
  if (pitch == row_bytes) {
    std::memcpy(to, from, static_cast<size_t>(rows * row_bytes));
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * row_bytes, from + r * pitch, static_cast<size_t>(row_bytes));
  }
}

}  // namespace

void UploadRows(Exec& exec, ConstMatrix host, Matrix device) {
  Check(host.dtype == device.dtype && host.rows == device.rows && host.cols == device.cols,
        "UploadRows: types or shapes differ");
  DeviceStream& stream = StreamOf(exec);
  const int64_t element = SizeOf(host.dtype);
  const int64_t row_bytes = host.cols * element;
  const int64_t from_pitch = host.stride * element;
  const int64_t to_pitch = device.stride * element;
  if (row_bytes * host.rows < CopyQueue::kSlotBytes || IsLocked(host.data)) {
    stream.CopyToDevice(device.data, to_pitch, host.data, from_pitch, row_bytes, host.rows);
    return;
  }
  const auto* from = static_cast<const std::byte*>(host.data);
  auto* to = static_cast<std::byte*>(device.data);
  CopyQueue& queue = stream.uploads();
  queue.StartAfter(stream);
  // Pieces are whole rows, or parts of one.
  for (int64_t column = 0; column < row_bytes; column += CopyQueue::kSlotBytes) {
    const int64_t width = std::min(CopyQueue::kSlotBytes, row_bytes - column);
    const int64_t rows_at_once = CopyQueue::kSlotBytes / width;
    for (int64_t row = 0; row < host.rows; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, host.rows - row);
      Gather(from + row * from_pitch + column, from_pitch, width, rows, queue.NextSlot());
      queue.CopySlot(to + row * to_pitch + column, to_pitch, width, rows);
    }
  }
  queue.FinishBefore(stream);
}

}  // namespace quantmill::QUANTMILL_CUDA
