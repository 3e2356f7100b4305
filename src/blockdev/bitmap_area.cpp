#include "blockdev/bitmap_area.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::blockdev {

using IoResult = Result<void, ports::IoError>;
using PageBytes = std::span<std::byte, DirtyBitmap::kPageBytes>;

std::uint64_t BitmapArea::pages_end() const noexcept {
  return std::min(pages_begin() + kBitmapTableEntries, layout_.bitmap_pages_count());
}

BitmapTableIdentity BitmapArea::identity() const noexcept {
  return {sequence_, static_cast<std::uint32_t>(table_block_), static_cast<std::uint32_t>(pages_end() - pages_begin())};
}

void BitmapArea::begin(const Layout& layout, std::uint64_t sequence, Done done) noexcept {
  layout_ = layout;
  sequence_ = sequence;
  done_ = done;
  table_block_ = 0;
  run_pages_ = 0;
  run_pages_max_ = kRunPagesMax;
}

void BitmapArea::finish(IoResult result) {
  const Done done = done_;
  done(result);
}

/// Moves page_ to the next stored page of this table block and says how many follow each other there; 0: none is left.
std::size_t BitmapArea::next_run(std::size_t count_max) noexcept {
  while (page_ < pages_end() && !entry(page_).is_stored) ++page_;
  std::size_t count = 0;
  while (count < count_max && page_ + count < pages_end() && entry(page_ + count).is_stored) ++count;
  return count;
}

void BitmapArea::save(const Layout& layout, std::uint64_t sequence, const DirtyBitmap* dirty, Done done) {
  begin(layout, sequence, done);
  saved_ = dirty;
  save_block();
}

void BitmapArea::save_block() {
  if (table_block_ == layout_.bitmap_table_blocks_count()) {
    io_.flush(done_);
    return;
  }
  page_ = pages_begin();
  for (std::uint64_t page = pages_begin(); page < pages_end(); ++page) {
    entry(page) = {
        saved_ != nullptr && page < saved_->pages_count() && saved_->has_page(static_cast<std::size_t>(page)), 0};
  }
  save_pages();
}

void BitmapArea::save_pages() {
  run_pages_ = next_run(kRunPagesMax);
  if (run_pages_ == 0) {
    encode_bitmap_table(identity(), std::span(entries_).first(pages_end() - pages_begin()),
                        io_.memory().first(kPageBytes));
    io_.write(layout_.bitmap_table_offset_bytes(table_block_), kPageBytes,
              Done::to<&BitmapArea::on_block_saved>(*this));
    return;
  }
  for (std::size_t n = 0; n < run_pages_; ++n) {
    const PageBytes bytes = PageBytes(io_.memory().subspan(n * kPageBytes, kPageBytes));
    saved_->get_page(static_cast<std::size_t>(page_ + n), bytes);
    entry(page_ + n).page_crc = crc32c(bytes);
  }
  io_.write(layout_.bitmap_page_offset_bytes(page_), run_pages_ * kPageBytes,
            Done::to<&BitmapArea::on_pages_saved>(*this));
}

void BitmapArea::on_pages_saved(IoResult result) {
  if (!result) {
    finish(result);
    return;
  }
  page_ += run_pages_;
  save_pages();
}

void BitmapArea::on_block_saved(IoResult result) {
  if (!result) {
    finish(result);
    return;
  }
  ++table_block_;
  save_block();
}

void BitmapArea::load(const Layout& layout, std::uint64_t sequence, DirtyBitmap& dirty, Done done) {
  begin(layout, sequence, done);
  loaded_ = &dirty;
  damaged_pages_count_ = 0;
  load_block();
}

void BitmapArea::load_block() {
  if (table_block_ == layout_.bitmap_table_blocks_count()) {
    finish({});
    return;
  }
  page_ = pages_begin();
  io_.read(layout_.bitmap_table_offset_bytes(table_block_), kPageBytes, Done::to<&BitmapArea::on_block_loaded>(*this));
}

void BitmapArea::on_block_loaded(IoResult result) {
  const std::span<BitmapTableEntry> entries = std::span(entries_).first(pages_end() - pages_begin());
  if (!result || !decode_bitmap_table(identity(), io_.memory().first(kPageBytes), entries)) {
    for (std::uint64_t page = pages_begin(); page < pages_end(); ++page) doubt_page(page);
    for (BitmapTableEntry& one : entries) one = {};
  }
  load_pages();
}

void BitmapArea::load_pages() {
  run_pages_ = next_run(run_pages_max_);
  if (run_pages_ == 0) {
    ++table_block_;
    load_block();
    return;
  }
  io_.read(layout_.bitmap_page_offset_bytes(page_), run_pages_ * kPageBytes,
           Done::to<&BitmapArea::on_pages_loaded>(*this));
}

void BitmapArea::on_pages_loaded(IoResult result) {
  if (!result && run_pages_ > 1) {
    run_pages_max_ = 1;  // One bad spot should not cost its neighbours: page by page from here.
    load_pages();
    return;
  }
  for (std::size_t n = 0; n < run_pages_; ++n) {
    const std::uint64_t page = page_ + n;
    const PageBytes bytes = PageBytes(io_.memory().subspan(n * kPageBytes, kPageBytes));
    if (!result || crc32c(bytes) != entry(page).page_crc) {
      doubt_page(page);
    } else if (page < loaded_->pages_count()) {
      loaded_->merge_page(static_cast<std::size_t>(page), bytes);
    }
  }
  page_ += run_pages_;
  load_pages();
}

void BitmapArea::doubt_page(std::uint64_t page) {
  ++damaged_pages_count_;
  const std::uint64_t page_bytes = kPageBytes * 8 * layout_.bitmap_block_bytes;
  const std::uint64_t begin_bytes = std::min(page * page_bytes, layout_.usable_bytes);
  const std::uint64_t end_bytes = std::min(begin_bytes + page_bytes, layout_.usable_bytes);
  loaded_->set(begin_bytes, end_bytes - begin_bytes);
}

}  // namespace replblk::blockdev
