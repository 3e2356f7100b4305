// What one connection still has to send, in order: copies of small things in 16 KiB chunks, and references to pool
// buffers. Gathered into one sendmsg at a time; consumed by what the kernel took. Steady state allocates nothing:
// chunks go back to a pool that all connections of a network share, and the ring of pieces keeps its size.
// Not responsible for sending. Invariant: bytes that gather() named stay where they are until consume() covers them.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"

namespace replblk::runtime {

struct SendChunk {
  static constexpr std::size_t kBytes = 16384 - 3 * sizeof(std::size_t);
  std::size_t used_bytes = 0;
  std::size_t piece_count = 0;  ///< pieces of the queue that lie here
  SendChunk* next = nullptr;
  std::byte bytes[kBytes];
};

class SendChunkPool {
 public:
  SendChunkPool() = default;
  SendChunkPool(const SendChunkPool&) = delete;
  SendChunkPool& operator=(const SendChunkPool&) = delete;
  ~SendChunkPool();
  [[nodiscard]] SendChunk& acquire();
  void release(SendChunk& chunk) noexcept;
  [[nodiscard]] std::size_t lent_count() const noexcept { return lent_count_; }

 private:
  /// 4 MiB kept for the next burst; the rest goes back to the system.
  static constexpr std::size_t kKeptMax = 256;
  SendChunk* free_ = nullptr;
  std::size_t free_count_ = 0;
  std::size_t lent_count_ = 0;
};

class SendQueue {
 public:
  static constexpr std::size_t kPiecesMax = 1024;  ///< IOV_MAX
  /// One send is at most this long, so that buffers come back while a large queue drains.
  static constexpr std::size_t kBatchBytesMax = std::size_t{1} << 20;

  explicit SendQueue(SendChunkPool& chunks) : chunks_(chunks) {}
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;
  ~SendQueue() { clear(); }

  void push_copy(ConstBytes bytes);
  void push(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes);
  [[nodiscard]] std::size_t queued_bytes() const noexcept { return queued_bytes_; }
  [[nodiscard]] bool empty() const noexcept { return queued_bytes_ == 0; }
  /// Names the front of the queue in `pieces` (its old content is dropped).
  void gather(std::vector<iovec>& pieces) const;
  void consume(std::size_t count_bytes) noexcept;
  void clear() noexcept { consume(queued_bytes_); }

 private:
  struct Piece {
    const std::byte* data = nullptr;
    std::size_t length_bytes = 0;
    BufferRef buffer;
    SendChunk* chunk = nullptr;
  };

  [[nodiscard]] Piece& at(std::size_t index) noexcept { return ring_[(head_ + index) & (ring_.size() - 1)]; }
  [[nodiscard]] const Piece& at(std::size_t index) const noexcept {
    return ring_[(head_ + index) & (ring_.size() - 1)];
  }
  [[nodiscard]] Piece& add_piece();
  void grow();
  void drop_front() noexcept;

  SendChunkPool& chunks_;
  std::vector<Piece> ring_;  ///< its size is a power of two
  std::size_t head_ = 0;
  std::size_t count_ = 0;
  std::size_t queued_bytes_ = 0;
  SendChunk* tail_ = nullptr;  ///< where the next copy goes
};

}  // namespace replblk::runtime
