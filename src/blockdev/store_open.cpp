// Opening and creating a volume's metadata: the steps, and the sentences that say why a volume is refused.
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "blockdev/record_codec.hpp"
#include "blockdev/store_impl.hpp"

namespace replblk::blockdev {

namespace {

[[nodiscard]] std::string_view describe(CopyState state) noexcept {
  switch (state) {
    case CopyState::unreadable:
      return "unreadable";
    case CopyState::absent:
      return "absent";
    case CopyState::damaged:
      return "damaged";
    case CopyState::from_the_future:
      return "of a newer format";
    case CopyState::torn:
      return "half written";
    case CopyState::whole:
      return "whole";
  }
  RB_UNREACHABLE();
}

}  // namespace

void Store::Impl::open(OpenDone done) {
  RB_ASSERT(!is_open && !is_busy_opening_);
  is_busy_opening_ = true;
  open_done_ = done;
  if (!superblocks_.has_room()) {
    refuse(
        {StoreErrorKind::no_metadata,
         fmt::format(
             "no replblk metadata: the device has {} bytes, too few to hold any; create-md needs a larger one, and if "
             "this one was made smaller its data is incomplete: let the peer's copy be synchronised to a whole one",
             io_.device_bytes())});
    return;
  }
  superblocks_.read(IoDone::to<&Impl::on_superblocks_read>(*this));
}

void Store::Impl::on_superblocks_read(IoResult) {
  auto error = verdict_error();
  if (!error) error = check_devices();
  if (!error) error = check_identity();
  if (error) {
    refuse(std::move(*error));
    return;
  }
  const SuperblockVerdict& verdict = superblocks_.verdict();
  if (verdict.kind == SuperblockVerdict::Kind::good) {
    if (verdict.is_repair_needed) RB_PROBE("torn_superblock_repaired_at_open");
    const auto other = static_cast<std::uint8_t>(1 - verdict.chosen);
    const CopyState state = superblocks_.copies()[other].state;
    if (state != CopyState::whole && state != CopyState::torn) {
      add_notice(fmt::format("superblock {} at byte {} was {} and is written again from the other one",
                             other == 0 ? 'A' : 'B', superblocks_.offset_bytes(other), describe(state)));
    }
    superblocks_.make_durable(IoDone::to<&Impl::on_made_durable>(*this));
    return;
  }
  load_bitmap();
}

/// What the two copies say, before anything of them is believed. Null: one of them counts.
std::optional<StoreError> Store::Impl::verdict_error() const {
  using Kind = SuperblockVerdict::Kind;
  const SuperblockVerdict& verdict = superblocks_.verdict();
  const auto& [a, b] = superblocks_.copies();
  const std::string found =
      fmt::format("superblock A at byte {} is {}, superblock B at byte {} is {}", superblocks_.offset_bytes(0),
                  describe(a.state), superblocks_.offset_bytes(1), describe(b.state));
  switch (verdict.kind) {
    case Kind::good:
    case Kind::one_only:
      return std::nullopt;
    case Kind::none:
      return StoreError{StoreErrorKind::no_metadata,
                        fmt::format("no replblk metadata where it must be (bytes {} to {} of {}), nor where it would "
                                    "be if the device had grown; "
                                    "if the device or file was made smaller since create-md, give it its former size "
                                    "back, else run create-md",
                                    superblocks_.offset_bytes(0), superblocks_.offset_bytes(1) + kSuperblockSlotBytes,
                                    io_.device_bytes())};
    case Kind::damaged:
      return StoreError{StoreErrorKind::damaged,
                        found + "; neither can be used: run create-md --force and let the peer synchronise this copy"};
    case Kind::different:
      return StoreError{
          StoreErrorKind::damaged,
          "the two superblocks are both valid but belong to different volumes or histories: the device was overwritten "
          "in part; run create-md --force and let the peer synchronise this copy"};
    case Kind::from_the_future: {
      const SuperblockCopy& copy = superblocks_.copies()[verdict.chosen];
      return StoreError{
          StoreErrorKind::from_the_future,
          fmt::format(
              "the metadata has format version {} with features {:#x}, this replblk knows version {} and none of "
              "these: use the replblk that wrote it, or a newer one",
              copy.version, copy.features, kFormatVersion)};
    }
    case Kind::unreadable:
      return StoreError{
          StoreErrorKind::io,
          found + "; the device does not read: replace it, run create-md and let the peer synchronise it"};
  }
  RB_UNREACHABLE();
}

/// Whether the devices are still what the metadata was made for.
std::optional<StoreError> Store::Impl::check_devices() const {
  const Layout& layout = superblock().layout;
  const std::uint64_t data_bytes = round_down_to_page(data_disk.geometry().size_bytes);
  const Placement placement = metadata_disk != nullptr ? Placement::external : Placement::internal;
  if (layout.placement != placement) {
    return StoreError{
        StoreErrorKind::wrong_volume,
        fmt::format(
            "the metadata says that it lies {}, the configuration says {}: correct `metadata` of this disk",
            layout.placement == Placement::external ? "on a device of its own" : "at the end of the data device",
            placement == Placement::external ? "on a device of its own" : "at the end of the data device")};
  }
  if (data_bytes < layout.data_device_bytes) {
    return StoreError{
        StoreErrorKind::shrunk,
        fmt::format(
            "the data device has {} bytes, the metadata was made for {}: data is missing; give the device its former "
            "size back",
            data_bytes, layout.data_device_bytes)};
  }
  if (round_down_to_page(io_.device_bytes()) < layout.metadata_end_bytes) {
    return StoreError{
        StoreErrorKind::shrunk,
        fmt::format("the metadata device has {} bytes, the metadata needs {}: give the device its former size back",
                    io_.device_bytes(), layout.metadata_end_bytes)};
  }
  return std::nullopt;
}

std::optional<StoreError> Store::Impl::check_identity() {
  auto named = decode_record(superblock().record);
  if (!named) {
    return StoreError{StoreErrorKind::damaged,
                      "the superblocks are whole but their record makes no sense: run create-md --force and let the "
                      "peer synchronise this copy"};
  }
  if (named->resource_name != options.resource_name || superblock().volume != options.volume) {
    return StoreError{StoreErrorKind::wrong_volume,
                      fmt::format("the device holds volume {} of resource \"{}\", the configuration says volume {} of "
                                  "resource \"{}\": correct "
                                  "the path",
                                  superblock().volume, named->resource_name, options.volume, options.resource_name)};
  }
  record = std::move(named->record);
  return std::nullopt;
}

void Store::Impl::on_made_durable(IoResult result) {
  if (!result) {
    refuse({StoreErrorKind::io,
            fmt::format("the superblocks can be read but not made durable (a flush, and a second writing of one that a "
                        "power cut left half written): {}; replace the device",
                        ports::to_string(result.error()))});
    return;
  }
  load_bitmap();
}

/// Once it is made good nothing is wrong any more, but a medium that does this is to be looked at.
void Store::Impl::add_notice(const std::string& sentence) {
  log_warning("resource {} volume {}: {}; check the device", options.resource_name, options.volume, sentence);
  notice += (notice.empty() ? "found at the start: " : "; ") + sentence;
}

void Store::Impl::load_bitmap() {
  const Layout& layout = superblock().layout;
  dirty.emplace(layout.usable_bytes, layout.bitmap_block_bytes);
  bitmap_.load(layout, *dirty, IoDone::to<&Impl::on_bitmap_loaded>(*this));
}

void Store::Impl::on_bitmap_loaded(IoResult) {
  if (bitmap_.damaged_sectors_count() > 0) {
    RB_PROBE("stored_bitmap_damaged");
    add_notice(fmt::format("{} sectors of the stored bitmap were damaged: their blocks count as different",
                           bitmap_.damaged_sectors_count()));
  }
  ring_.resize(kActivityLogBytes);
  ring_bytes_ = 0;
  read_log();
}

// ---- the activity log after a stop of any kind -----------------------------------------------------------------

void Store::Impl::read_log() {
  io_.read(superblock().layout.activity_log_offset_bytes + ring_bytes_, MetadataIo::kMemoryBytes,
           IoDone::to<&Impl::on_log_read>(*this));
}

void Store::Impl::on_log_read(IoResult result) {
  if (result) {
    std::copy_n(io_.memory().begin(), MetadataIo::kMemoryBytes,
                ring_.begin() + static_cast<std::ptrdiff_t>(ring_bytes_));
    ring_bytes_ += MetadataIo::kMemoryBytes;
    if (ring_bytes_ < kActivityLogBytes) return read_log();
    recovery_ = recover_log(ring_, superblock().volume_uuid);
  } else {
    recovery_ = {};
    recovery_.is_damaged = true;
    recovery_.reason = ports::to_string(result.error());
  }
  ring_ = {};
  recover();
}

void Store::Impl::recover() {
  if (!recovery_.is_damaged && recovery_.extents.empty()) {
    activity_log.start(superblock().layout.activity_log_offset_bytes, superblock().volume_uuid, recovery_.sequence);
    finish_open();
    return;
  }
  if (recovery_.is_damaged) {
    add_notice(fmt::format("the activity log was damaged ({}): every block counts as different", recovery_.reason));
    RB_PROBE("all_blocks_dirty_at_start");
    dirty->set_all();
  }
  for (const std::uint32_t extent : recovery_.extents) {
    const ByteRange range = extent_range(extent, recovery_.extent_shift);
    dirty->set(range.offset_bytes, range.length_bytes);
  }
  if (!recovery_.extents.empty()) {
    log_info("resource {} volume {}: {} extents were being changed when it was left: {} KiB count as different",
             options.resource_name, options.volume, recovery_.extents.size(), dirty->dirty_bytes() / 1024);
  }
  // protocol.md 5.3: what a killed process left in the cache must not be lost once the log no longer tells of it.
  flush_data(IoDone::to<&Impl::on_recovery_flushed>(*this));
}

void Store::Impl::on_recovery_flushed(IoResult result) {
  if (!result) return refuse_recovery(result.error());
  bitmap_.save(superblock().layout, *dirty, IoDone::to<&Impl::on_recovered_bits_saved>(*this));
}

void Store::Impl::on_recovered_bits_saved(IoResult result) {
  if (!result) return refuse_recovery(result.error());
  const Layout& layout = superblock().layout;
  if (recovery_.is_damaged) {
    write_ring(layout, superblock().volume_uuid, IoDone::to<&Impl::on_log_closed>(*this));
    return;
  }
  activity_log.start(layout.activity_log_offset_bytes, superblock().volume_uuid, recovery_.sequence);
  activity_log.write_closing(IoDone::to<&Impl::on_log_closed>(*this));
}

void Store::Impl::on_log_closed(IoResult result) {
  if (!result) return refuse_recovery(result.error());
  if (recovery_.is_damaged) {
    activity_log.start(superblock().layout.activity_log_offset_bytes, superblock().volume_uuid, kLogPagesCount);
  }
  finish_open();
}

void Store::Impl::refuse_recovery(ports::IoError error) {
  refuse({StoreErrorKind::io,
          fmt::format("what was being changed when this copy was left cannot be made durable: {}; check the device",
                      ports::to_string(error))});
}

/// A ring of transactions that leave every slot free.
void Store::Impl::write_ring(const Layout& layout, const Uuid& volume, IoDone done) {
  ring_layout_ = layout;
  ring_volume_ = volume;
  ring_done_ = done;
  ring_bytes_ = 0;
  on_ring_part_written({});
}

void Store::Impl::on_ring_part_written(IoResult result) {
  if (!result) return ring_done_(result);
  if (ring_bytes_ == kActivityLogBytes) return io_.flush(ring_done_);
  LogTransaction transaction;
  transaction.is_reset = true;
  transaction.extent_shift = options.activity_log.extent_shift;
  transaction.slots_count = options.activity_log.slots_count;
  for (std::size_t at = 0; at < MetadataIo::kMemoryBytes; at += kPageBytes) {
    const std::uint64_t index = (ring_bytes_ + at) / kPageBytes;
    // 1 … 256, each in its place: the newest is the last, in page 0.
    transaction.sequence = index == 0 ? kLogPagesCount : index;
    encode_transaction(transaction, ring_volume_, io_.memory().subspan(at, kPageBytes));
  }
  const std::uint64_t offset_bytes = ring_layout_.activity_log_offset_bytes + ring_bytes_;
  ring_bytes_ += MetadataIo::kMemoryBytes;
  io_.write(offset_bytes, MetadataIo::kMemoryBytes, IoDone::to<&Impl::on_ring_part_written>(*this));
}

void Store::Impl::finish_open() {
  const Superblock& current = superblock();
  const ports::Disk::Geometry& disk = data_disk.geometry();
  geometry.size_bytes = current.layout.usable_bytes;
  geometry.logical_block_bytes = current.logical_block_bytes;
  geometry.physical_block_bytes =
      std::max({disk.physical_block_bytes, disk.alignment_bytes, current.logical_block_bytes});
  geometry.supports_discard = disk.supports_discard;
  geometry.has_write_cache = options.has_write_cache;
  geometry.is_rotational = disk.is_rotational;
  data.open(geometry.size_bytes, geometry.logical_block_bytes);
  is_open = true;
  is_busy_opening_ = false;
  if (superblocks_.verdict().kind == SuperblockVerdict::Kind::good) {
    open_done_({});
    return;
  }
  const std::uint8_t lost = static_cast<std::uint8_t>(1 - superblocks_.verdict().chosen);
  const CopyState state = superblocks_.copies()[lost].state;
  const std::string sentence = fmt::format(
      "superblock {} at byte {} is {}, which no crash leaves: the device has lost what it said was written, and nobody "
      "can say that the other one is the newest",
      lost == 0 ? 'A' : 'B', superblocks_.offset_bytes(lost),
      state == CopyState::whole ? "older than it may be" : describe(state));
  add_notice(sentence);
  open_done_(fail(StoreError{StoreErrorKind::one_superblock, sentence}));
}

void Store::Impl::refuse(StoreError error) {
  refusal_ = std::move(error);
  world.loop.defer(refuse_task_);
}

void Store::Impl::tell_refused() {
  RB_ASSERT(refusal_.has_value());
  StoreError error = std::move(*refusal_);
  refusal_.reset();
  is_busy_opening_ = false;
  if (open_done_) {
    const OpenDone done = std::exchange(open_done_, {});
    done(fail(std::move(error)));
  } else {
    const CreateDone done = std::exchange(create_done_, {});
    done(fail(std::move(error)));
  }
}

void Store::Impl::create(const CreateOptions& create_options, CreateDone done) {
  RB_ASSERT(!is_open && !is_busy_opening_);
  is_busy_opening_ = true;
  open_done_ = {};
  create_done_ = done;
  const auto layout = plan_layout({metadata_disk != nullptr ? Placement::external : Placement::internal,
                                   data_disk.geometry().size_bytes, io_.device_bytes(),
                                   create_options.bitmap_block_bytes, create_options.size_bytes});
  if (!layout || !superblocks_.has_room()) {
    const std::string reason =
        create_options.bitmap_block_bytes != 0
            ? fmt::format(", or {} is no possible size of a bitmap block", create_options.bitmap_block_bytes)
        : create_options.size_bytes != 0 ? fmt::format(" for a volume of {} bytes", create_options.size_bytes)
                                         : "";
    refuse({StoreErrorKind::shrunk,
            fmt::format("the device has {} bytes, too few for data and metadata{}; metadata needs a "
                        "little more than 1.2 MB and one byte for each 32 KiB of data",
                        io_.device_bytes(), reason)});
    return;
  }
  RB_ASSERT(create_options.logical_block_bytes == 512 || create_options.logical_block_bytes == 4096);
  created_ = {};
  created_.volume_uuid = create_options.volume_uuid;
  created_.volume = create_options.volume;
  created_.logical_block_bytes = create_options.logical_block_bytes;
  created_.layout = *layout;
  created_.record = encode_record(create_options.resource_name, create_options.record);
  superblocks_.wipe(IoDone::to<&Impl::on_wiped>(*this));
}

void Store::Impl::on_wiped(IoResult result) {
  if (!result) {
    fail_create(result.error(), "the superblocks");
    return;
  }
  write_ring(created_.layout, created_.volume_uuid, IoDone::to<&Impl::on_ring_created>(*this));
}

void Store::Impl::on_ring_created(IoResult result) {
  if (!result) {
    fail_create(result.error(), "the activity log");
    return;
  }
  bitmap_.create(created_.layout, IoDone::to<&Impl::on_bitmap_created>(*this));
}

void Store::Impl::on_bitmap_created(IoResult result) {
  if (!result) {
    fail_create(result.error(), "the bitmap");
    return;
  }
  superblocks_.write_first(created_, IoDone::to<&Impl::on_created>(*this));
}

void Store::Impl::on_created(IoResult result) {
  if (!result) {
    fail_create(result.error(), "the superblocks");
    return;
  }
  is_busy_opening_ = false;
  const CreateDone done = std::exchange(create_done_, {});
  done(created_.layout.usable_bytes);
}

void Store::Impl::fail_create(ports::IoError error, std::string_view what) {
  refuse({StoreErrorKind::io, fmt::format("{} cannot be written: {}", what, ports::to_string(error))});
}

}  // namespace replblk::blockdev
