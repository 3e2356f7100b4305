#include "sim_undo_files.hpp"

#include <cstring>

namespace replblk::sim {

namespace {

constexpr double kRefusedProbability = 0.2;
constexpr double kFullProbability = 0.2;  ///< of a file, at one of its first writes
constexpr std::uint64_t kWritesToFull = 20;

}  // namespace

class SimUndoFiles::File final : public ports::UndoFile, public ports::Disk {
 public:
  File(SimUndoFiles& files, std::string path, std::uint64_t size_bytes)
      : files_(files), path_(std::move(path)), bytes_(size_bytes), flushed_(size_bytes) {
    geometry_.size_bytes = size_bytes;
    geometry_.alignment_bytes = 1;
    Seeded& random = files_.loop_.timeline().random();
    if (random.chance(kFullProbability)) writes_left_ = random.below(kWritesToFull);
  }
  [[nodiscard]] ports::Disk& disk() noexcept override { return *this; }
  [[nodiscard]] const Geometry& geometry() const noexcept override { return geometry_; }
  [[nodiscard]] Result<void, std::string> keep() override {
    files_.kept_[path_] = std::move(flushed_);
    return {};
  }
  void submit(ports::DiskOp& op) noexcept override {
    SimLoop& loop = files_.loop_;
    const Duration delay = loop.timeline().random().duration(microseconds(20), milliseconds(2));
    loop.timeline().after(delay, [this, lives = std::weak_ptr<bool>(exists_), &op, &loop] {
      // A dead process hears nothing any more.
      if (lives.expired() || !loop.is_alive()) return;
      loop.post([this, &op] { op.on_done(op, take_effect(op)); });
    });
  }

 private:
  Result<void, ports::IoError> take_effect(const ports::DiskOp& op) {
    if (op.kind == ports::DiskOpKind::flush) {
      flushed_ = bytes_;
      return {};
    }
    RB_ASSERT(op.kind == ports::DiskOpKind::write && op.offset_bytes + op.length_bytes <= bytes_.size());
    if (writes_left_ == 0) return fail(ports::IoError::no_space);
    --writes_left_;
    std::memcpy(bytes_.data() + op.offset_bytes, op.memory, op.length_bytes);
    return {};
  }

  SimUndoFiles& files_;
  std::string path_;
  Geometry geometry_;
  std::uint64_t writes_left_ = UINT64_MAX;  ///< until the file system is full
  std::vector<std::byte> bytes_;
  std::vector<std::byte> flushed_;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

Result<std::unique_ptr<ports::UndoFile>, std::string> SimUndoFiles::create(const std::string& path,
                                                                           std::uint64_t size_bytes) {
  if (loop_.timeline().random().chance(kRefusedProbability)) return fail(path + ": no room");
  return std::make_unique<File>(*this, path, size_bytes);
}

}  // namespace replblk::sim
