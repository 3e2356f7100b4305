// One of the two hosts: its devices, which survive, and the daemon that runs on it or does not. Starts whole Nodes as
// main does, and takes them away the hard ways. A killed Node is never destroyed: no destructor of a killed process
// runs either, so it is left lying (its memory given back to the system) and nothing ever calls it again. Invariant:
// between kill and start nothing of the old daemon acts but the writes and segments its kernel already had.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/dirty_bitmap.hpp"
#include "blockdev/record.hpp"
#include "blockdev/superblock.hpp"
#include "node/node.hpp"
#include "node/resource.hpp"
#include "options.hpp"
#include "sim_arbiter.hpp"
#include "sim_datagrams.hpp"
#include "sim_disk.hpp"
#include "sim_network.hpp"
#include "sim_undo_files.hpp"
#include "sim_virtual_ip.hpp"

namespace replblk::sim {

/// What a node's superblocks say, read as a later start would read them.
struct PersistedRecord {
  blockdev::ResourceRecord record;
  blockdev::DirtyBitmap dirty{0, 4096};  ///< stored bits and active extents
};

class SimHost final : private node::DiskOwner, private node::ArbiterOwner {
 public:
  SimHost(SimFabric& fabric, const RunOptions& options, blockdev::NodeIndex index);
  ~SimHost();

  /// Changes the configuration that the next starts read: what a person got wrong in the file.
  void set_config_edit(std::function<void(node::ClusterConfig&)> edit) { config_edit_ = std::move(edit); }

  /// create-md. `uuid` names the volume on both nodes, `record` what the node remembers. Returns the
  /// usable size.
  std::uint64_t create_metadata(const Uuid& uuid, const blockdev::ResourceRecord& record = {}, std::size_t volume = 0);
  void start();
  void kill();
  void cut_power();
  void restore_power();
  /// Orderly; `done` when the daemon has ended.
  void stop(std::function<void()> done);

  /// Whether a handler may answer no from now on.
  void let_handlers_refuse(bool may_refuse) noexcept { may_handlers_refuse_ = may_refuse; }
  [[nodiscard]] bool is_powered() const noexcept { return is_powered_; }
  [[nodiscard]] bool is_running() const noexcept { return process_ != nullptr; }
  [[nodiscard]] bool is_stopping() const noexcept { return is_stopping_; }
  [[nodiscard]] node::Node* node() noexcept { return process_ == nullptr ? nullptr : process_->node.get(); }
  [[nodiscard]] SimLoop& loop() noexcept { return process_->loop; }
  /// Nothing: not running, or not open yet.
  [[nodiscard]] std::optional<node::Resource::Inspection> inspect() const;
  /// What the superblocks say, read as a later start would read them; `is_stable_only`: a start after a power cut that
  /// keeps nothing volatile.
  [[nodiscard]] blockdev::ResourceRecord persisted(bool is_stable_only) const;
  /// The same with what the bitmap and the activity log say. Opens a store aside: dear.
  [[nodiscard]] PersistedRecord persisted_with_bits(bool is_stable_only, std::size_t volume = 0) const;
  /// Before a start: the medium has lost the activity log, and every block counts as different.
  void spoil_activity_log();
  /// The devices of one volume become larger.
  void grow_devices(std::size_t volume);
  /// The size of a volume that the superblocks say.
  [[nodiscard]] std::uint64_t volume_bytes(std::size_t volume) const {
    return superblock(false, volume).layout.usable_bytes;
  }
  [[nodiscard]] std::size_t volumes_count() const noexcept { return data_.size(); }
  [[nodiscard]] Medium& data(std::size_t volume = 0) noexcept { return data_[volume]; }
  [[nodiscard]] std::uint64_t first_sector(std::size_t volume) const noexcept {
    return volume * options_.volume_sectors();
  }
  /// What is at a sector, numbered through all volumes.
  [[nodiscard]] const std::byte* content(std::uint64_t sector) const noexcept {
    return data_[volume_of(sector)].content() + sector % options_.volume_sectors() * kSectorBytes;
  }
  [[nodiscard]] const std::byte* stable(std::uint64_t sector) const noexcept {
    return data_[volume_of(sector)].stable() + sector % options_.volume_sectors() * kSectorBytes;
  }
  /// When nothing that a dead daemon had written is still on its way to the devices.
  [[nodiscard]] Instant quiet_at() const noexcept {
    Instant at{};
    for (const Medium& medium : data_) at = std::max(at, medium.quiet_at());
    for (const auto& medium : metadata_) at = std::max(at, medium->quiet_at());
    return at;
  }
  [[nodiscard]] const SimUndoFiles::Kept& undo_files() const noexcept { return undo_files_; }
  /// The device with the metadata.
  [[nodiscard]] Medium& metadata(std::size_t volume = 0) noexcept {
    return metadata_.empty() ? data_[volume] : *metadata_[volume];
  }
  void heal_devices() noexcept {
    for (Medium& medium : data_) medium.heal();
    for (const auto& medium : metadata_) medium->heal();
  }
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  [[nodiscard]] blockdev::NodeIndex index() const noexcept { return index_; }
  /// From the next start on; null: none.
  void set_arbiter(SimArbiterServer* arbiter) noexcept { arbiter_ = arbiter; }
  /// From the next start on; null: no virtual IP.
  void set_lan(SimLan* lan) noexcept { lan_ = lan; }
  /// The mandate, at this moment of the host's clock.
  [[nodiscard]] bool holds_mandate() const;
  /// Counts starts.
  [[nodiscard]] std::uint64_t incarnation() const noexcept { return incarnation_; }

  /// `reply` is called from the node's loop, or never when the daemon dies first. `may_still` is asked when the daemon
  /// comes to the request (it may have hung meanwhile); no: the person has taken it back, and nothing is asked or
  /// answered.
  void request(const node::AdminRequest& request, std::function<bool()> may_still,
               std::function<void(const node::AdminReply&)> reply);
  /// A request that may come when it comes.
  void ask(const node::AdminRequest& request, std::function<void(const node::AdminReply&)> reply);

  /// What handlers were run for ("EVENT of RESOURCE"), in all incarnations.
  [[nodiscard]] const std::vector<std::string>& told() const noexcept { return told_; }

 private:
  /// Answers after a while, mostly with 0.
  class SimHandlers final : public ports::Handlers {
   public:
    SimHandlers(SimLoop& loop, const bool& may_refuse, std::vector<std::string>& told)
        : loop_(loop), may_refuse_(may_refuse), told_(told) {}
    void run(ports::HandlerCall call, Done done) override;

   private:
    SimLoop& loop_;
    const bool& may_refuse_;
    std::vector<std::string>& told_;
    std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
  };
  struct Process {
    Process(SimFabric& fabric, SimHost& host);
    SimLoop loop;
    SimNetwork network;
    SimDatagrams datagrams;
    SimHandlers handlers;
    SimUndoFiles undo_files;
    std::deque<SimDisk> data;
    std::deque<SimDisk> metadata;
    std::unique_ptr<BufferPool> buffers;
    std::optional<SimVirtualIp> virtual_ip;
    std::unique_ptr<node::Node> node;
  };
  // node::DiskOwner: the devices stay what they are.
  [[nodiscard]] std::vector<node::VolumeDisks> open(std::size_t index) override;
  void close(std::size_t) noexcept override {}
  [[nodiscard]] std::unique_ptr<ports::Arbiter> connect(std::size_t resource, ports::ArbiterSink& sink) override;
  void leave(bool is_power_cut);
  [[nodiscard]] blockdev::Superblock superblock(bool is_stable_only, std::size_t volume) const;
  [[nodiscard]] std::size_t volume_of(std::uint64_t sector) const noexcept {
    return static_cast<std::size_t>(sector / options_.volume_sectors());
  }
  [[nodiscard]] const Medium* metadata_medium(std::size_t volume) const noexcept {
    return metadata_.empty() ? nullptr : metadata_[volume].get();
  }
  void abandon();

  SimFabric& fabric_;
  const RunOptions& options_;
  blockdev::NodeIndex index_;
  std::string address_;
  std::deque<Medium> data_;                        ///< by volume
  std::vector<std::unique_ptr<Medium>> metadata_;  ///< by volume; empty: internal
  SimUndoFiles::Kept undo_files_;                  ///< that were kept
  Uuid boot_id_;
  bool is_powered_ = true;
  bool is_stopping_ = false;
  std::vector<std::string> told_;
  bool may_handlers_refuse_ = false;
  SimArbiterServer* arbiter_ = nullptr;
  SimLan* lan_ = nullptr;
  std::uint64_t incarnation_ = 0;
  std::function<void(node::ClusterConfig&)> config_edit_;
  std::unique_ptr<Process> process_;
};

[[nodiscard]] node::ClusterConfig make_cluster_config(const RunOptions& options, blockdev::NodeIndex self);

}  // namespace replblk::sim
