#include "runtime/send_queue.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.hpp"

namespace replblk::runtime {

SendChunkPool::~SendChunkPool() {
  RB_ASSERT(lent_count_ == 0);
  while (free_ != nullptr) delete std::exchange(free_, free_->next);
}

SendChunk& SendChunkPool::acquire() {
  ++lent_count_;
  if (free_ == nullptr) return *new SendChunk;
  --free_count_;
  SendChunk& chunk = *std::exchange(free_, free_->next);
  chunk.used_bytes = 0;
  return chunk;
}

void SendChunkPool::release(SendChunk& chunk) noexcept {
  RB_ASSERT(lent_count_ > 0 && chunk.piece_count == 0);
  --lent_count_;
  if (free_count_ == kKeptMax) {
    delete &chunk;
    return;
  }
  chunk.next = std::exchange(free_, &chunk);
  ++free_count_;
}

void SendQueue::push_copy(ConstBytes bytes) {
  queued_bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (tail_ == nullptr || tail_->used_bytes == SendChunk::kBytes) tail_ = &chunks_.acquire();
    const std::size_t length = std::min(bytes.size(), SendChunk::kBytes - tail_->used_bytes);
    std::byte* target = tail_->bytes + tail_->used_bytes;
    std::memcpy(target, bytes.data(), length);
    tail_->used_bytes += length;
    bytes = bytes.subspan(length);
    // Neighbours in one chunk go out as one piece; a send in flight that named the shorter one is not disturbed.
    if (count_ > 0 && at(count_ - 1).chunk == tail_) {
      at(count_ - 1).length_bytes += length;
      continue;
    }
    Piece& piece = add_piece();
    piece.data = target;
    piece.length_bytes = length;
    piece.chunk = tail_;
    ++tail_->piece_count;
  }
}

void SendQueue::push(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) {
  if (length_bytes == 0) return;
  Piece& piece = add_piece();
  piece.data = buffer.bytes(offset_bytes, length_bytes).data();
  piece.length_bytes = length_bytes;
  piece.buffer = std::move(buffer);
  piece.chunk = nullptr;
  queued_bytes_ += length_bytes;
}

void SendQueue::gather(std::vector<iovec>& pieces) const {
  pieces.clear();
  std::size_t room = kBatchBytesMax;
  for (std::size_t index = 0; index < count_ && room > 0 && pieces.size() < kPiecesMax; ++index) {
    const Piece& piece = at(index);
    const std::size_t length = std::min(piece.length_bytes, room);
    pieces.push_back({const_cast<std::byte*>(piece.data), length});
    room -= length;
  }
}

void SendQueue::consume(std::size_t count_bytes) noexcept {
  RB_ASSERT(count_bytes <= queued_bytes_);
  queued_bytes_ -= count_bytes;
  while (count_bytes > 0) {
    Piece& piece = at(0);
    const std::size_t length = std::min(piece.length_bytes, count_bytes);
    piece.data += length;
    piece.length_bytes -= length;
    count_bytes -= length;
    if (piece.length_bytes == 0) drop_front();
  }
}

void SendQueue::drop_front() noexcept {
  Piece& piece = at(0);
  // Given back last: somebody who waits for memory may be called, and push to this very queue.
  const BufferRef released = std::move(piece.buffer);
  SendChunk* chunk = std::exchange(piece.chunk, nullptr);
  head_ = (head_ + 1) & (ring_.size() - 1);
  --count_;
  if (chunk == nullptr || --chunk->piece_count > 0) return;
  if (chunk == tail_) tail_ = nullptr;
  chunks_.release(*chunk);
}

SendQueue::Piece& SendQueue::add_piece() {
  if (count_ == ring_.size()) grow();
  return at(count_++);
}

void SendQueue::grow() {
  std::vector<Piece> larger(std::max<std::size_t>(16, ring_.size() * 2));
  for (std::size_t index = 0; index < count_; ++index) larger[index] = std::move(at(index));
  ring_.swap(larger);
  head_ = 0;
}

}  // namespace replblk::runtime
