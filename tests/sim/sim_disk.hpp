// A block device in memory (Medium: survives processes) and a process's open handle on it (SimDisk: ports::Disk).
//
// The fault model, and what each fault stands for:
//   - Operations complete after a drawn latency, in any order, also when they overlap; now and then one takes seconds
//     (a stalled device). Reads see the content, and writes reach it, at the moment of completion.
//   - The device has a volatile cache. A completed write is in the content that everybody reads, but stable only when a
//     flush that was submitted later has completed, or when the write itself was durable.
//   - Power cut: every 512-byte sector of every completed write that is not stable, and of every write in flight, is
//     kept or lost independently of all others (so writes are torn, and later ones survive earlier ones). How many are
//     kept is drawn for each cut, from none to all. Stable sectors never change.
//   - Process killed: each of its writes in flight lands whole, lands in part (whole 4 KiB pages) or not at all, within
//     kLandingTimeMax. Devices are opened exclusively (protocol.md 4), so the next open waits for that: quiet_at().
//   - Defects: while a range is defective, reads or changes that touch it end with an error, or its reads end when it
//   is
//     well. After a failed change each sector is written or not, independently; of a read that failed the memory holds
//     anything. A flush that failed has made nothing stable. Claim: no wrong data, nothing answered is lost on the
//     other member; the node may refuse.
//   - Slow: for a while each operation takes longer by up to a given time.
//   - Hung: for a while nothing completes. What takes longer than DiskModel::timeout is given up as runtime's
//     DiskFile does it: reported as timed_out, and nothing more is asked of the device before it has come
//     back. It does come back when the device is well again: a write takes effect then, a read fills its memory then.
//   - The memory of an operation must not change while the device has it (checked by CRC).
// Not modelled: silent corruption, lost stable writes: a two-node mirror without checksums on disk cannot be required
// to survive these.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"
#include "ports/disk.hpp"
#include "sim_loop.hpp"

namespace replblk::sim {

inline constexpr std::uint32_t kSectorBytes = 512;

struct DiskModel {
  Duration latency_min = microseconds(20);
  Duration latency_max = microseconds(300);
  Duration flush_latency_max = milliseconds(3);
  double stall_probability = 0;  ///< of one operation
  Duration stall_max = seconds(1);
  Duration timeout{};            ///< after which an operation is given up; 0: never
  bool refuses_zeroing = false;  ///< though the geometry offers it: as some devices behind a controller do
};

/// What a device does not do at the moment.
struct Defect {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  bool fails_reads = false;
  bool fails_changes = false;
  bool fails_flushes = false;  ///< of the device, whatever the range
  bool holds_reads = false;    ///< they end when it is gone
  bool is_full = false;        ///< what fails_changes fails for want of room (ENOSPC), the device is well
};

class Medium {
 public:
  static constexpr Duration kLandingTimeMax = milliseconds(50);

  /// `growth_bytes`: by how much it can become larger.
  Medium(Timeline& timeline, std::string name, ports::Disk::Geometry geometry, std::uint64_t growth_bytes = 0);

  [[nodiscard]] const ports::Disk::Geometry& geometry() const noexcept { return geometry_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] Timeline& timeline() noexcept { return timeline_; }
  /// What a reader sees now.
  [[nodiscard]] const std::byte* content() const noexcept { return content_.get(); }
  /// What would be left if the power went and nothing volatile was kept.
  [[nodiscard]] const std::byte* stable() const noexcept { return stable_.get(); }
  /// The device becomes as large as it can; whoever has it open sees that when he asks.
  void grow() noexcept { geometry_.size_bytes = capacity_bytes_; }
  [[nodiscard]] std::uint64_t first_bytes() const noexcept { return first_bytes_; }  ///< before it grew
  /// For preparing a run: content and stable alike.
  void preset(std::uint64_t offset_bytes, ConstBytes bytes) noexcept;
  /// From the page of `begin_bytes` to the end, which is the same for both: what a reader of `from` sees, or what of it
  /// is stable.
  void preset(const Medium& from, std::uint64_t begin_bytes, bool is_stable_only) noexcept;

  /// `bytes` null: zeroes.
  void write(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes, bool is_durable);
  [[nodiscard]] std::uint64_t written_mark() const noexcept { return order_; }
  /// Every write up to the mark is stable.
  void make_stable(std::uint64_t mark) noexcept;
  /// A write that a dead process left in the kernel lands, or not.
  void leave_behind(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes, bool is_durable);
  [[nodiscard]] Instant quiet_at() const noexcept { return is_hung_ && !landing_.empty() ? Instant::max() : quiet_at_; }
  void cut_power();

  [[nodiscard]] bool is_full() const noexcept { return defect_.is_full; }
  void set_defect(const Defect& defect) noexcept { defect_ = defect; }
  void set_slowness(Duration most) noexcept { slowness_ = most; }
  void heal() noexcept {
    defect_ = {};
    slowness_ = {};
    is_hung_ = false;
  }
  void hang() noexcept { is_hung_ = true; }
  [[nodiscard]] bool is_hung() const noexcept { return is_hung_; }
  [[nodiscard]] Duration slowness() const noexcept { return slowness_; }
  /// It does not end before that is over.
  [[nodiscard]] bool holds(ports::DiskOpKind kind, std::uint64_t offset_bytes,
                           std::uint64_t length_bytes) const noexcept;
  [[nodiscard]] bool fails(ports::DiskOpKind kind, std::uint64_t offset_bytes,
                           std::uint64_t length_bytes) const noexcept;
  /// A change that failed: some of its sectors are written.
  void write_in_part(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes);

 private:
  struct Write {
    std::uint64_t order;
    std::uint64_t offset_bytes;
    std::uint64_t length_bytes;
    std::unique_ptr<std::byte[]> bytes;  ///< null: zeroes
  };
  void land(std::uint64_t key, bool is_durable);
  [[nodiscard]] bool touches_defect(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept;
  void touch(std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept;
  void put_stable(const Write& write, std::uint64_t sector) noexcept;
  [[nodiscard]] static std::unique_ptr<std::byte[]> copy(const std::byte* bytes, std::uint64_t length_bytes);

  Timeline& timeline_;
  std::string name_;
  ports::Disk::Geometry geometry_;
  std::uint64_t first_bytes_;
  std::uint64_t capacity_bytes_;
  struct Free {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> content_;
  std::unique_ptr<std::byte, Free> stable_;
  std::vector<bool> touched_;                ///< by page; the others are zeroes, and cost neither memory nor time
  std::vector<std::uint64_t> stable_order_;  ///< by sector: which write the stable content comes from
  std::deque<Write> volatile_;
  std::map<std::uint64_t, Write> landing_;
  std::uint64_t order_ = 0;
  Instant quiet_at_{};
  Defect defect_;
  Duration slowness_{};
  bool is_hung_ = false;
};

class SimDisk final : public ports::Disk {
 public:
  SimDisk(Medium& medium, SimLoop& loop, const DiskModel& model)
      : medium_(medium), loop_(loop), model_(model), geometry_(medium.geometry()) {}
  ~SimDisk() override { RB_ASSERT(in_flight_.empty()); }

  [[nodiscard]] const Geometry& geometry() const noexcept override { return geometry_; }
  [[nodiscard]] Result<std::uint64_t, ports::IoError> measure() noexcept override {
    geometry_ = medium_.geometry();
    return geometry_.size_bytes;
  }
  void submit(ports::DiskOp& op) noexcept override;
  [[nodiscard]] std::size_t unreturned_count() const noexcept override { return given_up_count_; }

  /// The process died: lets go of every operation. Before the owner of the operations is destroyed.
  void leave(bool is_power_cut);
  [[nodiscard]] std::size_t in_flight_count() const noexcept { return in_flight_.size(); }

 private:
  struct InFlight {
    ports::DiskOp* op;  ///< null: given up, nobody waits for it
    ports::DiskOpKind kind;
    bool is_durable;
    std::uint64_t offset_bytes;
    std::uint64_t length_bytes;
    std::byte* memory;
    std::uint32_t crc;
    std::uint64_t mark;
    bool is_done = false;  ///< by the device; waits for the process
  };
  void finish(std::uint64_t id);
  /// False: not supported.
  [[nodiscard]] bool take_effect(const InFlight& entry, bool is_failed);
  void give_up(std::uint64_t id);
  void refuse(ports::DiskOp& op, ports::IoError error);
  void report_refused();

  Medium& medium_;
  SimLoop& loop_;
  const DiskModel& model_;
  Geometry geometry_;  ///< as it was when the device was opened, or measured
  std::uint64_t next_id_ = 1;
  std::size_t given_up_count_ = 0;
  std::map<std::uint64_t, InFlight> in_flight_;
  IntrusiveList<ports::DiskOp, ports::DiskOp> linked_;  ///< so that an operation destroyed in flight is noticed
  /// As in runtime's DiskFile: after a flush or a durable change that failed, nothing that is flushed can be believed.
  bool is_durability_lost_ = false;
  std::deque<std::pair<ports::DiskOp*, ports::IoError>> refused_;
  ports::DeferredTask refused_task_{Callback<void()>::to<&SimDisk::report_refused>(*this)};
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace replblk::sim
