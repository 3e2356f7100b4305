// Takes the steps of making volumes larger on this node's stores, all volumes at once (docs/ondisk_format.md 6). Not
// responsible for what the two nodes agree upon: Resource is. One step at a time. Invariant: `done` comes once for each
// step, when nothing of it is in flight in any store.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/store.hpp"

namespace replblk::node {

class VolumesGrowth {
 public:
  /// Empty: done. Else a sentence that names the volume.
  using Done = std::function<void(std::string failure)>;

  /// The stores outlive this.
  void set_stores(const std::vector<blockdev::Store*>& stores);

  /// How large they can become, after asking the devices for their sizes; then rooms_bytes().
  void measure(Done done);
  void zero(const std::vector<std::uint64_t>& sizes_bytes, Done done);
  /// `is_equal`: what is new reads the same on both nodes; else it counts as different.
  void grow(const std::vector<std::uint64_t>& sizes_bytes, bool is_equal, Done done);
  /// Zeroing ends early, and fails.
  void stop() noexcept;

  [[nodiscard]] bool is_busy() const noexcept { return pending_count_ > 0; }
  [[nodiscard]] const std::vector<std::uint64_t>& rooms_bytes() const noexcept { return rooms_bytes_; }
  [[nodiscard]] std::vector<std::uint64_t> sizes_bytes() const;

 private:
  struct One {
    VolumesGrowth* all = nullptr;
    blockdev::Store* store = nullptr;
    std::size_t index = 0;
    void on_room(Result<std::uint64_t, std::string> room);
    void on_done(Result<void, ports::IoError> result);
  };
  void begin(std::string what, Done done);
  void one_done(std::size_t index, const std::string& failure);

  std::vector<std::unique_ptr<One>> ones_;
  std::vector<std::uint64_t> rooms_bytes_;
  std::size_t pending_count_ = 0;
  std::string what_;
  std::string failure_;
  Done done_;
};

}  // namespace replblk::node
