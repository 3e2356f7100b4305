#include "load_loop.hpp"

#include <liburing.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace replblk::bench {
namespace {

// One receive takes what a turn of the target sends: 256 KiB holds 60 reads of 4 KiB, and stays in cache.
constexpr std::size_t kReceiveBytes = 256 * 1024;
constexpr std::uint64_t kSendBit = 1;  // user data: lane index * 2, plus this for a send

}  // namespace

struct LoadLoop::Ring {
  io_uring ring{};
};

struct LoadLoop::Lane {
  explicit Lane(std::unique_ptr<LoadConnection> owned) : connection(std::move(owned)), buffer(kReceiveBytes) {}

  std::unique_ptr<LoadConnection> connection;
  std::vector<std::uint8_t> buffer;
  msghdr message{};
  std::uint64_t index = 0;
  bool receive_in_flight = false;
};

LoadLoop::LoadLoop(const Options& options, std::vector<std::unique_ptr<LoadConnection>> connections, Tally& tally)
    : options_(options), tally_(tally), ring_(std::make_unique<Ring>()) {
  for (auto& connection : connections) {
    lanes_.push_back(std::make_unique<Lane>(std::move(connection)));
    lanes_.back()->index = lanes_.size() - 1;
  }
  io_uring_params params{};
  // Completions are run only when this thread waits, so they interrupt nothing (kernel 6.1 or newer).
  params.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL;
  if (const int code = io_uring_queue_init_params(256, &ring_->ring, &params); code < 0) {
    fail("io_uring: %s (kernel 6.1 or newer, not forbidden by seccomp or kernel.io_uring_disabled)",
         std::strerror(-code));
  }
  io_uring_register_ring_fd(&ring_->ring);  // saves a file lookup per turn; works without
}

LoadLoop::~LoadLoop() { io_uring_queue_exit(&ring_->ring); }

Window LoadLoop::run() {
  start_ns_ = monotonic_now_ns();
  for (auto& lane : lanes_) {
    lane->connection->issue_ready(start_ns_);
    pump(*lane, start_ns_);
  }
  for (;;) {
    if (const int code = io_uring_submit_and_wait(&ring_->ring, 1); code < 0 && code != -EINTR) {
      fail("io_uring_enter: %s", std::strerror(-code));
    }
    const std::uint64_t now_ns = monotonic_now_ns();
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_->ring, head, entry) {
      complete(entry->user_data, entry->res, now_ns);
      ++count;
    }
    io_uring_cq_advance(&ring_->ring, count);
    follow_schedule(now_ns);
    bool all_logged_out = true;
    for (auto& lane : lanes_) {
      pump(*lane, now_ns);
      all_logged_out = all_logged_out && lane->connection->logged_out();
    }
    if (all_logged_out) {
      return window_;
    }
  }
}

void LoadLoop::follow_schedule(std::uint64_t now_ns) {
  const auto to_ns = [](double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); };
  switch (stage_) {
    case Stage::warm_up:
      if (now_ns - start_ns_ >= to_ns(options_.warm_up_seconds)) {
        window_.cpu_begin = sample_cpu(options_.watched_pids);
        window_.begin_ns = monotonic_now_ns();
        tally_.measuring = true;
        stage_ = Stage::measuring;
      }
      return;
    case Stage::measuring:
      if (now_ns - window_.begin_ns >= to_ns(options_.seconds)) {
        tally_.measuring = false;
        window_.end_ns = now_ns;
        window_.cpu_end = sample_cpu(options_.watched_pids);
        stage_ = Stage::draining;
        for (auto& lane : lanes_) {
          lane->connection->stop();
        }
      }
      return;
    case Stage::draining:
      return;
  }
}

void LoadLoop::complete(std::uint64_t user_data, std::int32_t result, std::uint64_t now_ns) {
  Lane& lane = *lanes_[user_data >> 1];
  const bool is_send = (user_data & kSendBit) != 0;
  if (result <= 0) {
    if (!is_send && lane.connection->logged_out()) {
      return;
    }
    fail("%s: %s", is_send ? "send" : "receive",
         result == 0 ? "the target closed the connection" : std::strerror(-result));
  }
  if (is_send) {
    lane.connection->sent(static_cast<std::size_t>(result));
    return;
  }
  lane.receive_in_flight = false;
  lane.connection->receive({lane.buffer.data(), static_cast<std::size_t>(result)}, now_ns);
}

void LoadLoop::pump(Lane& lane, std::uint64_t now_ns) {
  LoadConnection& connection = *lane.connection;
  connection.issue_ready(now_ns);
  const auto next_entry = [this] {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_->ring);
    if (entry == nullptr) {
      fail("submission queue overflow");  // 256 entries, two per connection, 64 connections at most
    }
    return entry;
  };
  // The send goes first: the target works on it while this thread arms the receive.
  if (!connection.send_in_flight()) {
    if (const auto gather = connection.next_gather(); !gather.empty()) {
      lane.message = msghdr{};
      lane.message.msg_iov = gather.data();
      lane.message.msg_iovlen = gather.size();
      io_uring_sqe* entry = next_entry();
      io_uring_prep_sendmsg(entry, connection.socket(), &lane.message, MSG_WAITALL | MSG_NOSIGNAL);
      entry->user_data = lane.index << 1 | kSendBit;
    }
  }
  if (!lane.receive_in_flight && !connection.logged_out()) {
    io_uring_sqe* entry = next_entry();
    io_uring_prep_recv(entry, connection.socket(), lane.buffer.data(), lane.buffer.size(), 0);
    entry->user_data = lane.index << 1;
    lane.receive_in_flight = true;
  }
}

}  // namespace replblk::bench
