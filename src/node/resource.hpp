// One resource on one node: its volumes, its role, its record and its connection to the peer. It carries out what the
// pure parts decide (replication/meeting, membership/membership_machine) in the order that protocol.md demands: durable
// first, then acted upon. Not responsible for listening (Node) or for anything that SCSI and iSCSI do above the
// mirrors.
//
//   link:  none → introducing → wait_created
//                             → agreeing ────────────────────────────→ established
//                             → source_preparing → source_syncing → adding → established
//                             → target_preparing → target_syncing ─────────→ established
//   Any end of the connection leads back to none. Who serves then, and all along, the MembershipMachine says.
//
// Invariants: nothing is acted upon before it is durable in both superblocks of every volume; a node introduces itself
// only while no change of its own is under way; the channel is bound to one configuration.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/store.hpp"
#include "iscsi/portal.hpp"
#include "iscsi/target.hpp"
#include "membership/membership_machine.hpp"
#include "node/admin.hpp"
#include "node/config.hpp"
#include "node/heartbeat_link.hpp"
#include "node/node.hpp"
#include "node/reported_reasons.hpp"
#include "node/undo_copy.hpp"
#include "node/virtual_ips.hpp"
#include "node/volumes_growth.hpp"
#include "ports/world.hpp"
#include "replication/meeting.hpp"
#include "replication/mirror.hpp"
#include "replication/peer_channel.hpp"
#include "replication/peer_link.hpp"
#include "replication/peer_server.hpp"
#include "replication/progress_watch.hpp"
#include "replication/resync.hpp"
#include "replication/sync_pause.hpp"
#include "replication/verify.hpp"
#include "scsi/device.hpp"

namespace replblk::node {

enum class LinkPhase : std::uint8_t {
  none,
  introducing,
  wait_created,
  agreeing,
  source_preparing,
  source_syncing,
  adding,
  target_preparing,
  target_syncing,
  established,
};

/// Between attempts to connect that fail.
inline constexpr Duration kDialBackoffMax = seconds(10);

using AdminReplyCallback = std::function<void(AdminReply)>;

class Resource final : private replication::PeerChannelObserver,
                       private scsi::ReservationKeeper,
                       private HeartbeatLink::Listener,
                       private ports::ArbiterSink {
 public:
  Resource(const ClusterConfig& cluster, const ResourceConfig& config, ports::World& world, iscsi::Portal& portal,
           Uuid boot_id, std::uint64_t incarnation, std::vector<VolumeDisks> disks,
           const std::vector<ports::VirtualIp*>& virtual_ips, HeartbeatPaths& heartbeat_paths);
  /// Before start(), and only with an arbiter in the configuration. It is told by this.
  void set_arbiter(std::unique_ptr<ports::Arbiter> arbiter) noexcept { arbiter_ = std::move(arbiter); }
  [[nodiscard]] ports::ArbiterSink& arbiter_sink() noexcept { return *this; }
  Resource(const Resource&) = delete;
  Resource& operator=(const Resource&) = delete;
  ~Resource();

  /// Opens the volumes, then connects and serves as far as the record allows.
  void start();
  /// Gives up the role, drains, flushes, leaves clean records. `done` is called once.
  void stop(std::function<void()> done);
  /// A connection whose Hello names this resource. It takes the place of the present one once it has proved the secret.
  void accept(std::unique_ptr<replication::PeerChannel> channel, const replication::Hello& hello);
  /// Something that named no resource spoke on the replication port: stands in `status` while there is no connection.
  void note_stranger(const std::string& reason);

  void make_primary(bool is_forced, AdminReplyCallback reply);
  void make_secondary(AdminReplyCallback reply);
  void switch_over(AdminReplyCallback reply);
  void set_standby(bool is_standby, AdminReplyCallback reply);
  void set_maintenance(bool is_maintenance, const AdminReplyCallback& reply);
  /// `discards_data`: should the nodes have split, this copy is given up, by the next meeting that decides.
  void connect(bool discards_data, AdminReplyCallback reply);
  void disconnect(AdminReplyCallback reply);
  void pause_sync(AdminReplyCallback reply);
  void resume_sync(AdminReplyCallback reply);
  void verify(const AdminRequest& request, AdminReplyCallback reply);
  /// The volumes become as large as the devices of both nodes are now.
  void resize(AdminReplyCallback reply);
  /// The whole copy here, or there, is overwritten by the other one.
  void invalidate(AdminReplyCallback reply);
  void invalidate_remote(AdminReplyCallback reply);

  /// Why its disks cannot be let go of, or opened anew, now; empty: they can. The resource is stopped for it, and
  /// another takes its place.
  [[nodiscard]] std::string why_no_detach() const;
  [[nodiscard]] std::string why_no_attach() const;
  /// Why nothing may take the place of this resource; empty: nothing of it is left in a device.
  [[nodiscard]] std::string why_disks_must_stay() const;
  /// The copy was left behind because its device did not answer, and the device has answered everything by now.
  [[nodiscard]] bool is_reopenable() const;
  /// The owner will open it `pause` from now.
  void announce_reopening(Duration pause);
  /// Nothing is in flight to a disk.
  [[nodiscard]] bool is_quiet() const;
  [[nodiscard]] bool is_down() const noexcept { return is_stopping_; }
  [[nodiscard]] const std::string& name() const noexcept { return config_.name; }
  [[nodiscard]] ResourceStatus status() const;

  /// For checkers: what stands behind the status. Not for decisions.
  struct Inspection {
    const blockdev::ResourceRecord* record = nullptr;
    bool is_primary = false;
    bool is_serving = false;
    bool is_frozen = false;
    std::optional<Instant> frozen_since;
    bool is_copy_failed = false;
    bool is_recording = false;  ///< a change of the record is not yet durable
    LinkPhase phase = LinkPhase::none;
    const membership::MembershipMachine* machine = nullptr;
    const Resource* resource = nullptr;
    bool is_open = false;  ///< the volumes were opened; until then they are not looked at
    bool is_repairing = false;
    bool is_quiet = false;  ///< no request of initiators or peer in flight, nothing unstable under way
    [[nodiscard]] std::vector<blockdev::Store*> stores() const;
    [[nodiscard]] std::vector<const replication::Verify*> verifies() const;
  };
  [[nodiscard]] Inspection inspect() const;

 private:
  struct Volume {
    VolumeConfig config;
    VolumeDisks disks;
    std::uint16_t index = 0;
    std::unique_ptr<blockdev::Store> store;
    std::unique_ptr<replication::Mirror> mirror;
    std::unique_ptr<replication::Resync> resync;
    std::unique_ptr<replication::Verify> verify;
    std::string failure;          ///< why it could not be opened, or why its metadata failed
    std::string trouble;          ///< what the only copy, which goes on, failed; until it is opened again or one of two
    bool has_lost_write = false;  ///< of its record
    bool is_resynced = false;
    bool is_verifying = false;  ///< by this node's verify, or what that found is not yet durable
    Resource* resource = nullptr;
    Duration stalled_for{};        ///< nothing has ended on its devices, though something waits
    std::uint64_t last_ended = 0;  ///< what had ended on them at the last tick
    void on_opened(Result<void, blockdev::StoreError> result);
    void on_metadata_failed(ports::IoError error);
    void on_disk_failed(bool is_hung);
    void on_resynced();
    void on_verified();
  };

  // resource.cpp: opening, the record, stopping
  void volume_opened(Volume& volume, Result<void, blockdev::StoreError> result);
  void all_opened();
  /// Whether the copy may have lost what its cache held (protocol.md 3.7).
  void refuse_volumes_of_two_pairs();
  [[nodiscard]] bool take_records();
  void build_target();
  void persist(blockdev::ResourceRecord next, std::function<void()> then);
  /// As soon as every record that was handed to persist() is durable; never, if one cannot be written.
  void when_persisted(std::function<void()> then);
  void run_after_persists();
  void save_bitmaps(std::function<void()> then);
  /// Nothing is being changed any more: flushes the own copies, makes all that may differ durable as bits, closes the
  /// activity logs (protocol.md 5.1, 5.3).
  void settle_all(std::function<void()> then);
  using StoreStep = void (blockdev::Store::*)(Callback<void(Result<void, ports::IoError>)>);
  void for_all_stores(StoreStep step, std::function<void()> then);
  using StoreOperation = std::function<void(blockdev::Store&, const Callback<void(Result<void, ports::IoError>)>&)>;
  using StoreFailure = std::function<void(Volume&, ports::IoError)>;
  void on_all_stores(const StoreOperation& begin, StoreFailure failed, std::function<void(bool is_good)> then);
  void flush_all(std::function<void(bool is_good)> then);
  /// Runs `then` once no request is in flight in any mirror.
  void drain_all(std::function<void()> then);
  void check_drained();
  [[nodiscard]] bool are_mirrors_idle() const;
  [[nodiscard]] bool is_handed_over() const;
  void go_on_stopping();
  void begin_stop();
  void continue_stop();
  void end_stop();
  void finish_stop();
  void on_tick();
  void on_request_latency(Duration latency);
  [[nodiscard]] bool is_settled() const;
  [[nodiscard]] bool are_volumes_open() const;
  [[nodiscard]] bool has_peer() const noexcept { return cluster_.is_pair(); }
  [[nodiscard]] NodeIndex self() const noexcept { return cluster_.self; }
  [[nodiscard]] NodeIndex peer() const noexcept { return blockdev::other_node(cluster_.self); }
  [[nodiscard]] std::uint64_t fresh_nonce();
  void freeze_all();
  void thaw_all();

  // resource_handlers.cpp
  [[nodiscard]] std::vector<std::string> handler_environment() const;
  void tell(HandlerEvent event);
  void tell_of_lost_quorum(Instant now);
  void ask_before_resync(std::function<void()> then);

  // resource_disk.cpp: the own copy fails
  /// Both are members and connected: the peer's copy has everything.
  [[nodiscard]] bool is_own_copy_dispensable() const;
  [[nodiscard]] bool can_hand_over(Instant now) const;
  void server_disk_failed(std::uint16_t volume, bool is_hung);
  /// `is_hung`: the device has failed nothing, it does not answer; is_reopenable() says when it has.
  void only_copy_failed(Volume& volume);
  void bits_not_saved(Volume& volume, ports::IoError error);
  void copy_failed(Volume& volume, const std::string& what, bool is_hung);
  [[nodiscard]] bool hand_over_when_stalled(Instant now);
  void tick_with_failed_copy();

  // resource_membership.cpp: who serves, and every change of the configuration
  void build_machine(bool may_have_lost_cache);
  void on_membership_timer();
  void on_heartbeat(const membership::Heartbeat& heartbeat) override;
  void on_heartbeat_frame(ConstBytes bytes) override;
  [[nodiscard]] bool may_answer();
  void gate_closed();
  void pump();
  void carry_out(const membership::PersistEffect& effect);
  void carry_out(const membership::SendHeartbeatEffect& effect);
  void carry_out(const membership::SendProposalEffect& effect);
  void carry_out(const membership::SendProposalAckEffect& effect);
  void carry_out(const membership::EndConnectionEffect& effect);
  void carry_out(const membership::EstablishedEffect& effect);
  void carry_out(const membership::TargetReadyEffect& effect);
  void carry_out(const membership::SourceReadyEffect& effect);
  void carry_out(const membership::DrainAndFlushEffect& effect);
  void carry_out(const membership::FlushOwnEffect& effect);
  void carry_out(const membership::ReadArbiterEffect& effect);
  void carry_out(const membership::ReplaceRecordEffect& effect);
  void carry_out(const membership::OverwriteRecordEffect& effect);
  void carry_out(const membership::ProbeAddressesEffect& effect);
  void carry_out(const membership::ServiceEffect& effect);
  void joined();
  void receive(const replication::Proposal& message);
  void receive(const replication::ProposalAck& message);
  void on_arbiter_read(std::uint64_t number, const ports::ArbiterReading& reading) override;
  void on_arbiter_replaced(std::uint64_t number, bool is_replaced) override;
  void on_arbiter_probed(std::uint64_t number, bool is_reached) override;
  void on_arbiter_overwritten(std::uint64_t number) override;
  void on_arbiter_failed(std::uint64_t number, const ports::ArbiterFailure& failure) override;

  // resource_role.cpp: the administrator's verbs, and what a role is made of
  enum class Wish : std::uint8_t { primary, secondary, peer_primary, recorded };
  struct OpenVerb {
    Wish wish = Wish::primary;
    AdminReplyCallback reply;
    std::string outcome;  ///< of one that is recorded; the others have theirs
    Instant deadline{};
    bool had_peer = false;  ///< both copies were members when it was taken up
  };
  void open_verb(Wish wish, AdminReplyCallback reply, std::string outcome = {});
  void answer_open_verbs(const std::string& what);
  void answer_done_verbs();
  [[nodiscard]] bool is_overtaken(const OpenVerb& verb) const;
  [[nodiscard]] std::string outcome_of(const OpenVerb& verb) const;
  [[nodiscard]] bool is_wish_fulfilled(Wish wish) const;
  void promote(bool is_forced, const AdminReplyCallback& reply);
  void serve();
  void open_to_initiators();
  void close_to_initiators(const std::string& reason, Duration move_time);
  void step_down(const std::string& reason);
  [[nodiscard]] bool was_virtual_ip_given() const;
  void look_at_virtual_ips(Instant now);
  [[nodiscard]] bool may_move_by_itself() const;
  /// The role goes back to the preferred node, where that was asked for (proto/config.proto, failback_after_s).
  void fail_back(Instant now);
  void record_wish(bool blockdev::ResourceRecord::* wish, bool is_wanted);
  void send_role(bool has_addresses);

  // resource_reservations.cpp: SCSI's persistent reservations, durable on every copy before they are answered
  void keep(std::string table, Callback<void(bool is_kept)> done) override;
  void start_keeping();
  void check_kept();
  void refuse_keeping();
  void receive(const replication::Reservations& message);
  void receive(const replication::ReservationsAck& message);

  // resource_link.cpp: the connection, the meeting, and what travels
  void dial();
  void schedule_dial();
  void begin_attempt();
  void attempt_succeeded();
  void back_off();
  void report_failure(const std::string& reason);
  void on_proven() override;
  void on_message(const replication::Message& message) override;
  void on_operation(const replication::FrameHeader& header, BufferRef data) override;
  void on_acknowledge(std::uint64_t sequence, replication::OperationStatus status) override;
  void on_checksums(const replication::FrameHeader& header, ConstBytes entries) override;
  void on_channel_ended(replication::ChannelEnd end, const std::string& reason) override;
  void candidate_proven();
  void candidate_ended(replication::ChannelEnd end, const std::string& reason);
  void retire(std::unique_ptr<replication::PeerChannel> channel);
  void end_channel(const std::string& state, const std::string& reason, const replication::Refusal* refusal);
  void link_lost();
  void introduce();
  /// The nodes have met.
  [[nodiscard]] bool is_connected() const noexcept {
    return phase_ != LinkPhase::none && phase_ != LinkPhase::introducing;
  }
  void meet();
  void role_changed(const replication::RoleChange& message);
  void set_peer_primary(bool is_primary);
  void tell_target();
  void protocol_violation(const std::string& reason);
  void receive(const replication::Introduction& message);
  void receive(const replication::Refusal& message);
  [[nodiscard]] replication::HandshakeIdentity identity();
  [[nodiscard]] replication::Introduction introduction() const;
  /// Wraps a continuation so that it runs only while the present channel is still the channel.
  [[nodiscard]] std::function<void()> for_this_channel(std::function<void()> then);

  // resource_resync.cpp: one resync from its plan to the add
  void plan_as_source(const replication::Plan& plan);
  void begin_as_source();
  void begin_as_target(const blockdev::Configuration& source, bool is_full);
  void receive(const replication::SyncStart& message);
  void send_bitmaps();
  void on_bitmap_page(const replication::FrameHeader& header, ConstBytes page) override;
  void start_syncing();
  void record_merged(std::uint64_t term, std::function<void()> then);
  void volume_resynced(Volume& volume);

  // resource_split.cpp: what becomes of a split brain
  [[nodiscard]] bool settle_split(replication::Plan& plan);
  void give_up_copy(const std::string& reason);
  void fill_changes(replication::Introduction& intro) const;
  [[nodiscard]] std::vector<SplitSideStatus> split_sides() const;
  /// What was written here while this node was alone, and is about to be overwritten, is kept first. `then` is not
  /// called if it cannot be kept, or if the connection has ended meanwhile.
  void keep_for_undo(bool is_whole, std::function<void()> then);
  void undo_ended(const std::string& failure);

  // resource_sync.cpp: what the administrator asks of resyncs
  void send_pause();
  void apply_pause();
  /// Whether the resync that the nodes have just agreed upon compares before it copies.
  [[nodiscard]] replication::ResyncMode choose_mode(const replication::Plan& plan) const;
  /// protocol.md 6: ends the connection when a resync stands still. True: it did.
  bool end_stuck_sync(Instant now);
  void receive(const replication::SyncPause& message);
  void receive(const replication::SyncProgress& message);
  void receive(const replication::VerifyRequest& message);
  void receive(const replication::Invalidate& message);
  /// Why no copy can be given up now; empty: one can.
  [[nodiscard]] std::string why_no_invalidation() const;
  [[nodiscard]] bool may_peer_serve() const;
  void overwrite_peer();
  [[nodiscard]] std::string why_no_verify() const;
  /// Of two members that are connected: what must end first; empty: nothing.
  [[nodiscard]] std::string why_members_are_busy() const;
  void begin_verify(blockdev::ByteRange range, bool is_repair);
  void volume_verified(Volume& volume);
  void verified();
  void begin_repair();
  void volume_repaired();
  /// Ends a verify or repair of this node's: the connection, the role or the configuration changes.
  void end_verify(const std::string& why);
  [[nodiscard]] bool are_copiers_idle() const;
  /// Runs `then` once nothing of a resync or verify is in flight.
  void when_copiers_idle(std::function<void()> then);
  void check_copiers_idle();
  [[nodiscard]] replication::SyncProgress::Activity activity() const;
  [[nodiscard]] bool is_verifying() const;
  void send_progress();

  // resource_resize.cpp: the volumes grow
  struct Resizing {
    bool is_driver = false;                  ///< asked for on this node, not by the peer
    std::vector<std::uint64_t> sizes_bytes;  ///< what the volumes are to have; empty: not yet known
    bool is_zeroed_here = false;
    bool is_zeroed_there = false;
    AdminReplyCallback reply;
    Instant began_at{};
  };
  [[nodiscard]] std::string why_no_resize() const;
  void resize_measured(const std::vector<std::uint64_t>& rooms_there);
  void resize_zeroed();
  void resize_grow();
  void sizes_changed();
  void end_resize(const std::string& failure, AdminOutcome outcome = AdminOutcome::failed);
  void answer_long_resize(Instant now);
  void receive(const replication::Resize& message);
  void receive(const replication::ResizeReply& message);
  [[nodiscard]] bool level_sizes();

  // resource_status.cpp
  [[nodiscard]] std::string disk_state() const;
  [[nodiscard]] std::string disk_reason(const Volume& volume) const;
  [[nodiscard]] std::string replication_reason() const;
  [[nodiscard]] std::string replication_state() const;
  void add_progress(const Volume& volume, VolumeStatus& status) const;
  [[nodiscard]] VerifyStatus verify_status(const Volume& volume) const;
  [[nodiscard]] std::string peer_disk_state() const;
  [[nodiscard]] VolumeStatus volume_status(const Volume& volume) const;

  const ClusterConfig& cluster_;
  const ResourceConfig& config_;
  ports::World& world_;
  iscsi::Portal& portal_;
  Uuid boot_id_;
  std::uint64_t incarnation_;

  replication::ResyncGovernor governor_;
  std::vector<std::unique_ptr<Volume>> volumes_;
  std::size_t opening_count_ = 0;
  std::unique_ptr<scsi::Device> device_;
  std::unique_ptr<iscsi::Target> target_;
  VirtualIps virtual_ips_;

  blockdev::ResourceRecord record_;  ///< as last handed to persist(); durable when persists_out_ is 0
  std::size_t persists_out_ = 0;
  std::vector<std::function<void()>> after_persists_;
  bool is_opened_ = false;
  bool is_copy_failed_ = false;  ///< what the own disk holds counts for nothing until the next start
  bool is_copy_hung_ = false;
  Instant last_stall_look_{};
  bool is_crashed_primary_ = false;

  std::unique_ptr<membership::MembershipMachine> machine_;  ///< from the moment when the volumes are open
  std::unique_ptr<ports::Arbiter> arbiter_;
  ports::Timer membership_timer_;
  ports::DeferredTask gate_task_;
  ports::DeferredTask stop_task_;
  bool is_pumping_ = false;
  bool is_membership_over_ = false;  ///< the daemon ends: nothing is agreed to, or said, any more
  struct ProposedReservations {
    std::uint64_t term = 0;
    std::string table;
  };
  ProposedReservations proposed_reservations_;  ///< become the record's with the configuration of that term

  bool is_primary_ = false;  ///< initiators are served, or frozen
  std::vector<OpenVerb> open_verbs_;
  Instant established_at_{};
  Instant last_virtual_ip_look_{};
  std::optional<Instant> virtual_ips_unfit_since_;  ///< of a Primary
  bool is_unfit_by_force_ = false;                  ///< a person made it Primary without the virtual IP
  bool is_handing_over_ = false;                    ///< a stop waits until the peer has the role
  Instant handed_over_by_{};
  Instant last_word_by_{};
  bool is_stopping_ = false;
  bool is_stop_drained_ = false;
  bool is_stop_ending_ = false;
  std::vector<std::function<void()>> on_drained_;
  bool is_stopped_ = false;
  std::function<void()> stop_done_;

  LinkPhase phase_ = LinkPhase::none;
  std::unique_ptr<replication::PeerChannel> channel_;
  /// An accepted connection that has not yet proved the secret.
  struct Candidate final : replication::PeerChannelObserver {
    Resource* resource = nullptr;
    std::unique_ptr<replication::PeerChannel> channel;
    void on_proven() override { resource->candidate_proven(); }
    void on_message(const replication::Message&) override {}
    void on_operation(const replication::FrameHeader&, BufferRef) override {}
    void on_acknowledge(std::uint64_t, replication::OperationStatus) override {}
    void on_bitmap_page(const replication::FrameHeader&, ConstBytes) override {}
    void on_checksums(const replication::FrameHeader&, ConstBytes) override {}
    void on_heartbeat_frame(ConstBytes) override {}
    void on_channel_ended(replication::ChannelEnd end, const std::string& reason) override {
      resource->candidate_ended(end, reason);
    }
  };
  Candidate candidate_;
  std::vector<std::unique_ptr<replication::PeerChannel>> retired_channels_;
  ports::DeferredTask sweep_task_;
  std::uint64_t channel_number_ = 0;  ///< counts connections, for for_this_channel()
  bool is_standalone_ = false;
  bool is_resync_beginning_ = false;  ///< as target: waits for before_resync_target, or for what is kept for an undo
  std::shared_ptr<int> lives_ = std::make_shared<int>(0);  ///< for answers that may come when it is gone
  std::string connection_state_ = "Unconnected";
  std::string connection_reason_;
  ReportedReasons reported_;
  Duration dial_backoff_{};
  Instant attempt_began_{};
  bool was_attempt_good_ = false;
  bool is_discarding_ = false;          ///< this copy is given up if the next meeting finds a split
  std::vector<SplitSideStatus> split_;  ///< what the last meeting found; empty: no split
  std::unique_ptr<UndoCopy> undo_;      ///< of the copy under undo_generation_; goes on when the connection breaks
  blockdev::Generation undo_generation_;
  std::function<void()> on_undo_;  ///< what waits for it on the present connection
  ports::Timer dial_timer_;
  ports::Timer tick_timer_;
  ports::Timer stop_timer_;
  std::optional<replication::Introduction> my_introduction_;
  std::optional<replication::Introduction> peer_introduction_;
  bool is_peer_primary_ = false;
  std::optional<Instant> addresses_given_at_;  ///< the peer, which gave the role up, had the virtual IPs until then
  std::optional<Instant> frozen_since_;        ///< as Primary
  bool is_lost_quorum_told_ = false;           ///< of this time
  replication::ResyncMode resync_mode_ = replication::ResyncMode::copy;
  bool is_set_coarse_ = false;        ///< opened after a crash: the dirty set is far larger than what differs
  bool is_resync_continued_ = false;  ///< the present one goes on where the last one was cut off
  replication::SyncPauseFlags pause_;
  replication::ProgressWatch progress_watch_;
  std::uint64_t verify_number_ = 0;  ///< counts their beginnings and ends
  bool is_verify_repair_ = false;    ///< what it finds is to be mended
  bool is_repairing_ = false;        ///< resyncs run between two members, after a verify
  std::vector<std::function<void()>> on_copiers_idle_;
  VolumesGrowth growth_;
  std::unique_ptr<Resizing> resizing_;       ///< null: no resize is under way
  replication::SyncProgress peer_progress_;  ///< what the peer does with the copies
  replication::SyncProgress::Activity told_activity_ = replication::SyncProgress::Activity::none;
  Instant last_progress_sent_{};
  LinkPhase watched_phase_ = LinkPhase::none;
  std::string sync_failure_;   ///< why the last resync ended without success; until one gets further
  bool is_plan_full_ = false;  ///< the resync that was planned copies everything
  Instant last_flush_tick_{};
  bool is_saving_progress_ = false;

  HeartbeatLink heartbeats_;

  /// Tables of reservations that wait to be kept, the first one being kept while is_keeping_.
  struct Keeping {
    std::string table;
    Callback<void(bool is_kept)> done;
  };
  std::deque<Keeping> keepings_;
  bool is_keeping_ = false;
  bool is_keeping_here_ = false;     ///< the own record is not durable
  bool is_keeping_at_peer_ = false;  ///< nor has the peer acknowledged
  std::uint64_t keeping_number_ = 0;
  Instant keeping_deadline_{};
  ports::DeferredTask keep_task_;

  replication::PeerLink link_;
  std::unique_ptr<replication::PeerServer> server_;
};

}  // namespace replblk::node
