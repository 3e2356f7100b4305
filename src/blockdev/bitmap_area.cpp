#include "blockdev/bitmap_area.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "blockdev/sealed_sector.hpp"

namespace replblk::blockdev {

namespace {

using IoResult = Result<void, ports::IoError>;

constexpr std::size_t kPageSectors = kPageBytes / kSectorBytes;
constexpr std::size_t kSectorWords = DirtyBitmap::kSavedPageWords / kPageSectors;
constexpr std::size_t kPlaceAt = kSectorWords * 8;
constexpr std::size_t kCrcAt = 508;
static_assert(kSectorWords * kPageSectors == DirtyBitmap::kSavedPageWords && kPlaceAt + 4 == kCrcAt);

using SectorWords = std::array<std::uint64_t, kSectorWords>;

/// The number of a sector within the area, as far as it fits: a sector of another place is not believed.
[[nodiscard]] std::uint32_t place_of(std::uint64_t page, std::size_t sector) noexcept {
  return static_cast<std::uint32_t>(page * kPageSectors + sector);
}

void encode_sector(std::uint64_t page, std::size_t sector, const SectorWords& words, MutableBytes bytes) noexcept {
  for (std::size_t index = 0; index < kSectorWords; ++index) {
    store_le<std::uint64_t>(bytes.data() + index * 8, words[index]);
  }
  store_le<std::uint32_t>(bytes.data() + kPlaceAt, place_of(page, sector));
  store_le<std::uint32_t>(bytes.data() + kCrcAt, crc32c(bytes.first(kCrcAt)));
}

[[nodiscard]] bool decode_sector(std::uint64_t page, std::size_t sector, ConstBytes bytes,
                                 SectorWords& words) noexcept {
  if (load_le<std::uint32_t>(bytes.data() + kCrcAt) != crc32c(bytes.first(kCrcAt))) return false;
  if (load_le<std::uint32_t>(bytes.data() + kPlaceAt) != place_of(page, sector)) return false;
  for (std::size_t index = 0; index < kSectorWords; ++index) {
    words[index] = load_le<std::uint64_t>(bytes.data() + index * 8);
  }
  return true;
}

void encode_page(std::uint64_t page, const DirtyBitmap* dirty, MutableBytes bytes) noexcept {
  for (std::size_t sector = 0; sector < kPageSectors; ++sector) {
    SectorWords words{};
    if (dirty != nullptr) dirty->get_words(page * DirtyBitmap::kSavedPageWords + sector * kSectorWords, words);
    encode_sector(page, sector, words, bytes.subspan(sector * kSectorBytes, kSectorBytes));
  }
}

}  // namespace

BitmapArea::BitmapArea(MetadataIo& io, ports::Disk& disk) : io_(io), disk_(disk) {
  for (Lane& lane : lanes_) {
    lane.area = this;
    lane.op.on_done = Callback<void(ports::DiskOp&, IoResult)>::to<&Lane::on_saved>(lane);
  }
}

BitmapArea::~BitmapArea() { RB_ASSERT(busy_count_ == 0); }

void BitmapArea::begin(const Layout& layout, Done done) noexcept {
  layout_ = layout;
  done_ = done;
  page_ = 0;
  run_pages_ = 0;
  run_pages_max_ = kRunPagesMax;
}

void BitmapArea::finish(IoResult result) {
  const Done done = done_;
  done(result);
}

// ---- create ----------------------------------------------------------------------------------------------------

void BitmapArea::create(const Layout& layout, Done done) {
  begin(layout, done);
  create_run();
}

void BitmapArea::create_run() {
  run_pages_ = static_cast<std::size_t>(std::min<std::uint64_t>(kRunPagesMax, layout_.bitmap_pages_count() - page_));
  for (std::size_t n = 0; n < run_pages_; ++n) {
    encode_page(page_ + n, nullptr, io_.memory().subspan(n * kPageBytes, kPageBytes));
  }
  io_.write(layout_.bitmap_page_offset_bytes(page_), run_pages_ * kPageBytes,
            Done::to<&BitmapArea::on_run_created>(*this));
}

void BitmapArea::on_run_created(IoResult result) {
  if (!result) return finish(result);
  page_ += run_pages_;
  if (page_ == layout_.bitmap_pages_count()) return io_.flush(done_);
  create_run();
}

// ---- save ------------------------------------------------------------------------------------------------------

void BitmapArea::save(const Layout& layout, DirtyBitmap& dirty, Done done) {
  begin(layout, done);
  dirty_ = &dirty;
  wanted_pages_ = nullptr;
  begin_save();
}

void BitmapArea::save_pages(const Layout& layout, DirtyBitmap& dirty, const std::vector<std::uint64_t>& pages,
                            Done done) {
  begin(layout, done);
  dirty_ = &dirty;
  wanted_pages_ = &pages;
  wanted_index_ = 0;
  begin_save();
}

/// The first page at or after `page` that is to be saved; saved_pages_count() of the set: none.
std::uint64_t BitmapArea::next_changed(std::uint64_t page) noexcept {
  const std::uint64_t count = dirty_->saved_pages_count();
  if (wanted_pages_ == nullptr) {
    while (page < count && !dirty_->is_changed(page)) ++page;
    return page;
  }
  for (; wanted_index_ < wanted_pages_->size(); ++wanted_index_) {
    const std::uint64_t wanted = (*wanted_pages_)[wanted_index_];
    if (wanted >= page && dirty_->is_changed(wanted)) return wanted;
  }
  return count;
}

void BitmapArea::begin_save() {
  RB_ASSERT(busy_count_ == 0);
  save_error_.reset();
  page_ = next_changed(0);
  fill_lanes();
}

void BitmapArea::fill_lanes() {
  for (Lane& lane : lanes_) {
    if (save_error_ || page_ >= dirty_->saved_pages_count()) break;
    if (!lane.is_busy) save_run(lane);
  }
  if (busy_count_ > 0) return;
  if (save_error_) return finish(fail(*save_error_));
  io_.flush(done_);
}

void BitmapArea::save_run(Lane& lane) {
  if (lane.memory == nullptr) lane.memory = make_aligned_memory(kLanePagesMax * kPageBytes);
  const std::uint64_t first = page_;
  std::size_t count = 0;
  while (count < kLanePagesMax && page_ == first + count && page_ < dirty_->saved_pages_count()) {
    encode_page(page_, dirty_, {lane.memory.get() + count * kPageBytes, kPageBytes});
    dirty_->set_saved(page_);
    ++count;
    page_ = next_changed(page_ + 1);
  }
  written_pages_count_ += count;
  ++saves_count_;
  ++busy_count_;
  lane.is_busy = true;
  lane.op.kind = ports::DiskOpKind::write;
  lane.op.offset_bytes = layout_.bitmap_page_offset_bytes(first);
  lane.op.length_bytes = count * kPageBytes;
  lane.op.memory = lane.memory.get();
  disk_.submit(lane.op);
}

void BitmapArea::Lane::on_saved(ports::DiskOp&, IoResult result) { area->lane_saved(*this, result); }

void BitmapArea::lane_saved(Lane& lane, IoResult result) {
  lane.is_busy = false;
  --busy_count_;
  if (!result) {
    ++errors_count_;
    if (result.error() == ports::IoError::timed_out) abandoned_.push_back(std::move(lane.memory));
    if (!save_error_) save_error_ = result.error();
  }
  fill_lanes();
}

// ---- load ------------------------------------------------------------------------------------------------------

void BitmapArea::load(const Layout& layout, DirtyBitmap& dirty, Done done) {
  begin(layout, done);
  dirty_ = &dirty;
  damaged_sectors_count_ = 0;
  load_run();
}

void BitmapArea::load_run() {
  const std::uint64_t count = dirty_->saved_pages_count();
  if (page_ == count) return finish({});
  run_pages_ = static_cast<std::size_t>(std::min<std::uint64_t>(run_pages_max_, count - page_));
  io_.read(layout_.bitmap_page_offset_bytes(page_), run_pages_ * kPageBytes,
           Done::to<&BitmapArea::on_run_loaded>(*this));
}

void BitmapArea::on_run_loaded(IoResult result) {
  if (!result && run_pages_ > 1) {
    run_pages_max_ = 1;  // One bad spot should not cost its neighbours: page by page from here.
    return load_run();
  }
  for (std::size_t n = 0; n < run_pages_; ++n) {
    if (result) {
      take_page(page_ + n, io_.memory().subspan(n * kPageBytes, kPageBytes));
    } else {
      for (std::size_t sector = 0; sector < kPageSectors; ++sector) doubt_sector(page_ + n, sector);
    }
  }
  page_ += run_pages_;
  load_run();
}

void BitmapArea::take_page(std::uint64_t page, ConstBytes bytes) {
  bool is_whole = true;
  for (std::size_t sector = 0; sector < kPageSectors; ++sector) {
    SectorWords words;
    if (decode_sector(page, sector, bytes.subspan(sector * kSectorBytes, kSectorBytes), words)) {
      dirty_->merge_words(page * DirtyBitmap::kSavedPageWords + sector * kSectorWords, words);
    } else {
      doubt_sector(page, sector);
      is_whole = false;
    }
  }
  if (is_whole) dirty_->set_saved(page);
}

void BitmapArea::doubt_sector(std::uint64_t page, std::size_t sector) {
  const std::uint64_t block = (page * DirtyBitmap::kSavedPageWords + sector * kSectorWords) * 64;
  if (block >= dirty_->blocks_count()) return;
  ++damaged_sectors_count_;
  const std::uint64_t begin_bytes = block * layout_.bitmap_block_bytes;
  const std::uint64_t length_bytes = std::uint64_t{kSectorWords} * 64 * layout_.bitmap_block_bytes;
  dirty_->set(begin_bytes, std::min(length_bytes, layout_.usable_bytes - begin_bytes));
}

}  // namespace replblk::blockdev
