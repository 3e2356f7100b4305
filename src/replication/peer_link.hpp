// The operations that were sent to the peer and are not yet acknowledged, of all volumes of a resource. Gives out
// sequence numbers, finds the operation of an acknowledgement, knows the oldest, and tells every owner when the peer is
// lost. Invariant: on_answer comes exactly once for each operation that was sent. Nothing is allocated in steady state.
#pragma once

#include <cstdint>
#include <vector>

#include "base/callback.hpp"
#include "base/intrusive_list.hpp"
#include "base/time.hpp"
#include "replication/peer_channel.hpp"

namespace replblk::replication {

enum class PeerAnswer : std::uint8_t { done, lost };

/// A member of whoever sends: one operation at the peer.
class OutstandingOperation : public IntrusiveNode<OutstandingOperation> {
 public:
  Callback<void(PeerAnswer)> on_answer;
  /// What the answer carries beside its status: 0 for an acknowledgement. Set before it is sent.
  std::uint32_t answer_bytes = 0;
  /// Those bytes; valid in on_answer(done) only. Empty although some were wanted: the peer could not read them.
  [[nodiscard]] ConstBytes answer() const noexcept { return answer_; }
  /// The answer to a read_request: a buffer of answer_bytes. Empty: the peer could not read them.
  [[nodiscard]] BufferRef take_data() noexcept { return std::move(data_); }
  [[nodiscard]] bool is_out() const noexcept { return is_linked(); }

 private:
  friend class PeerLink;
  std::uint64_t sequence_ = 0;
  Instant sent_{};
  std::uint64_t length_bytes_ = 0;
  ConstBytes answer_;
  BufferRef data_;
};

/// The sending end of a connection, as Mirror and Resync see it. Lives as long as the resource; connections come and
/// go.
class PeerLink {
 public:
  explicit PeerLink(ports::Loop& loop) : loop_(loop) {}

  /// Operations sent from here on go over `channel`, under `term`.
  void attach(PeerChannel& channel, std::uint64_t term) noexcept;
  void set_term(std::uint64_t term) noexcept { term_ = term; }
  [[nodiscard]] bool is_attached() const noexcept { return channel_ != nullptr; }
  /// The connection is gone: every outstanding operation gets PeerAnswer::lost.
  void detach();

  /// `header.sequence` and `term` are filled in. With data: header.length_bytes bytes of the buffer at `offset_bytes`.
  void send(OutstandingOperation& operation, FrameHeader header);
  void send(OutstandingOperation& operation, FrameHeader header, const BufferRef& buffer, std::size_t offset_bytes);
  /// `bytes`: what came with it. False: no operation is out that could be answered so (the peer broke the protocol).
  [[nodiscard]] bool acknowledge(std::uint64_t sequence, ConstBytes bytes = {});
  /// `data`: what was read there. False: as acknowledge().
  [[nodiscard]] bool deliver(std::uint64_t sequence, BufferRef data, std::uint64_t length_bytes);
  /// The peer could not do it. True: it was a question, and who asked takes no answer for one. False: whatever it was
  /// must not be lost, so the connection ends.
  [[nodiscard]] bool refuse(std::uint64_t sequence);

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// The oldest operation has been out for longer than `timeout` (and more for a long range: 20 ms per MiB).
  [[nodiscard]] bool is_overdue(Duration timeout) noexcept;

 private:
  void admit(OutstandingOperation& operation, FrameHeader& header);
  [[nodiscard]] OutstandingOperation* find(std::uint64_t sequence) const noexcept;
  void answer(OutstandingOperation& operation, ConstBytes bytes);

  ports::Loop& loop_;
  PeerChannel* channel_ = nullptr;
  std::uint64_t term_ = 0;
  std::uint64_t counter_ = 0;
  std::size_t count_ = 0;
  std::vector<OutstandingOperation*> slots_;
  std::vector<std::uint16_t> free_;
  IntrusiveList<OutstandingOperation, OutstandingOperation> oldest_first_;
};

}  // namespace replblk::replication
