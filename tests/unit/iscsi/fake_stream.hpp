// A ports::Stream whose other end is the test: what the target sends is kept, what the test delivers is handed over as
// a kernel would (direct targets first, nothing while paused). No gtest in here: the fuzzers use it too.
// Invariant: like a real stream it calls nobody after close(), abort() or its destruction.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "ports/stream.hpp"

namespace replblk::test {

class FakeStream;

/// The test's end. Outlives the stream.
struct Wire {
  FakeStream* stream = nullptr;
  std::vector<std::byte> sent;         ///< by the target, not yet taken by the test
  std::vector<std::byte> undelivered;  ///< by the test, while the target has paused
  std::size_t queued_bytes = 0;        ///< what the target is told of its queue
  std::size_t direct_bytes = 0;        ///< delivered through direct targets
  bool is_aborted = false;
  bool is_closed = false;

  [[nodiscard]] bool is_over() const { return is_aborted || is_closed || stream == nullptr; }
  void deliver(ConstBytes bytes);
  void close_by_peer();
  void give_room();
};

class FakeStream final : public ports::Stream {
 public:
  explicit FakeStream(Wire& wire) : wire_(wire) { wire_.stream = this; }
  ~FakeStream() override {
    if (!wire_.is_closed) wire_.is_aborted = true;
    wire_.stream = nullptr;
  }

  void set_sink(ports::StreamSink& sink) noexcept override { sink_ = &sink; }
  void send(ConstBytes bytes) override { wire_.sent.insert(wire_.sent.end(), bytes.begin(), bytes.end()); }
  void send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) override {
    send(ConstBytes(buffer.bytes(offset_bytes, length_bytes)));
  }
  [[nodiscard]] std::size_t queued_bytes() const noexcept override { return wire_.queued_bytes; }
  void pause_receive() noexcept override { is_paused_ = true; }
  void resume_receive() noexcept override { is_paused_ = false; }
  void close() noexcept override {
    wire_.is_closed = true;
    sink_ = nullptr;
  }
  void abort() noexcept override {
    wire_.is_aborted = true;
    sink_ = nullptr;
    wire_.sent.clear();
  }
  void abort_after(ConstBytes last_words, Duration) noexcept override {
    abort();
    if (wire_.queued_bytes == 0) send(last_words);
  }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return local_; }
  [[nodiscard]] const ports::Endpoint& remote() const noexcept override { return remote_; }

  [[nodiscard]] bool is_paused() const { return is_paused_; }

  void receive(ConstBytes bytes) {
    while (sink_ != nullptr && !bytes.empty()) {
      ports::DirectTarget target = sink_->direct_target();
      if (target.buffer) {
        const std::size_t count = std::min(target.length_bytes, bytes.size());
        std::memcpy(target.buffer.data() + target.offset_bytes, bytes.data(), count);
        bytes = bytes.subspan(count);
        wire_.direct_bytes += count;
        target.buffer.reset();
        sink_->on_direct(count);
        if (sink_ == nullptr || bytes.empty()) return;
      }
      sink_->on_receive(bytes);
      return;
    }
  }
  void end(ports::StreamError error) {
    if (sink_ == nullptr) return;
    ports::StreamSink* sink = sink_;
    sink_ = nullptr;
    sink->on_closed(error);
  }
  void tell_room() {
    if (sink_ != nullptr) sink_->on_send_room();
  }

 private:
  Wire& wire_;
  ports::StreamSink* sink_ = nullptr;
  ports::Endpoint local_{"192.0.2.1", 3260};
  ports::Endpoint remote_{"192.0.2.7", 40000};
  bool is_paused_ = false;
};

inline void Wire::deliver(ConstBytes bytes) {
  if (is_over()) return;
  undelivered.insert(undelivered.end(), bytes.begin(), bytes.end());
  if (stream->is_paused() || undelivered.empty()) return;
  std::vector<std::byte> now;
  now.swap(undelivered);
  stream->receive(now);
}
inline void Wire::close_by_peer() {
  if (!is_over()) stream->end(ports::StreamError::closed_by_peer);
}
inline void Wire::give_room() {
  queued_bytes = 0;
  if (!is_over()) stream->tell_room();
}

class NoNetwork final : public ports::Network {
 public:
  Result<std::unique_ptr<ports::Listener>, ports::ListenError> listen(const ports::Endpoint&,
                                                                      ports::AcceptSink&) override {
    return fail(ports::ListenError::other);
  }
  std::unique_ptr<ports::Stream> connect(const ports::Endpoint&, std::string_view, ports::StreamSink&) override {
    return nullptr;
  }
  void reset_parting(std::string_view) noexcept override {}
};

class NoRandom final : public ports::Random {
 public:
  void fill(std::span<std::byte> bytes) noexcept override { std::ranges::fill(bytes, std::byte{7}); }
};

}  // namespace replblk::test
