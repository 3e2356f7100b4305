// A Store on fake disks, driven by hand, and what it said.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "blockdev/store.hpp"
#include "support/fake_disk.hpp"
#include "support/fake_loop.hpp"

namespace replblk::blockdev::test {

using replblk::test::FakeDisk;
using replblk::test::FakeLoop;

class ZeroRandom final : public ports::Random {
 public:
  void fill(std::span<std::byte> bytes) noexcept override { std::fill(bytes.begin(), bytes.end(), std::byte{0}); }
};
class NoNetwork final : public ports::Network {
 public:
  Result<std::unique_ptr<ports::Listener>, ports::ListenError> listen(const ports::Endpoint&,
                                                                      ports::AcceptSink&) override {
    return fail(ports::ListenError::other);
  }
  std::unique_ptr<ports::Stream> connect(const ports::Endpoint&, std::string_view, ports::StreamSink&) override {
    RB_UNREACHABLE();
  }
  void reset_parting(std::string_view) noexcept override {}
};

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

[[nodiscard]] inline ports::Disk::Geometry disk_geometry(std::uint64_t size_bytes,
                                                         std::uint32_t alignment_bytes = 512) {
  ports::Disk::Geometry geometry;
  geometry.size_bytes = size_bytes;
  geometry.alignment_bytes = alignment_bytes;
  geometry.logical_block_bytes = alignment_bytes == 4096 ? 4096 : 512;
  return geometry;
}

[[nodiscard]] inline ResourceRecord sample_record(std::uint64_t term) {
  ResourceRecord record;
  record.configuration = {term, 3, 1};
  record.seen = term + 1;
  record.pair_id.bytes.fill(std::byte{7});
  record.boot_id.bytes.fill(std::byte{9});
  record.generations.current = {term, 0xabcdef0123456789};
  record.generations.base = {term - 1, 42};
  for (std::uint64_t n = 0; n < term % 33; ++n) record.generations.history.push_back({n + 1, n * 0x9e3779b97f4a7c15});
  record.lease_ms_max = 1500;
  record.is_primary_open = true;
  return record;
}

[[nodiscard]] inline CreateOptions create_options(const ResourceRecord& record) {
  CreateOptions options;
  options.resource_name = "iscsi_data";
  options.volume = 3;
  options.volume_uuid.bytes.fill(std::byte{0x5a});
  options.record = record;
  return options;
}

[[nodiscard]] inline StoreOptions store_options() {
  StoreOptions options;
  options.resource_name = "iscsi_data";
  options.volume = 3;
  options.requests_max = 8;
  return options;
}

/// The world around one store. Results of callbacks are kept; `*_result` is empty until the callback came.
struct StoreBench {
  FakeLoop loop;
  ZeroRandom random;
  NoNetwork network;
  BufferPool buffers{8 * kMiB};
  FakeDisk data;
  std::unique_ptr<FakeDisk> metadata;
  std::unique_ptr<Store> store;
  std::optional<Result<std::uint64_t, StoreError>> create_result;
  std::optional<Result<void, StoreError>> open_result;
  std::vector<Result<void, ports::IoError>> save_results;

  explicit StoreBench(ports::Disk::Geometry geometry) : data(geometry) { restart(); }
  StoreBench(ports::Disk::Geometry geometry, std::vector<std::byte> image) : data(geometry, std::move(image)) {
    restart();
  }
  /// The next daemon on the disk of one that was killed: power stayed, so what is in the cache is still there, and
  /// volatile.
  explicit StoreBench(const FakeDisk& left) : data(left) {
    data.forget_queued();
    restart();
  }
  explicit StoreBench(ports::Disk::Geometry geometry, std::uint64_t metadata_bytes)
      : data(FakeDisk::hollow(geometry, std::min<std::uint64_t>(geometry.size_bytes, 16 * kMiB))),
        metadata(std::make_unique<FakeDisk>(disk_geometry(metadata_bytes))) {
    restart();
  }
  ~StoreBench() { run(); }

  void restart(StoreOptions options = store_options()) {
    if (store) run();
    store =
        std::make_unique<Store>(ports::World{loop, random, network, buffers}, data, metadata.get(), std::move(options));
    create_result.reset();
    open_result.reset();
    save_results.clear();
  }
  void run() {
    bool has_more = true;
    while (has_more) {
      loop.run();
      has_more = data.complete_next();
      if (metadata) has_more = metadata->complete_next() || has_more;
    }
    loop.run();
  }
  void on_created(Result<std::uint64_t, StoreError> result) { create_result = std::move(result); }
  void on_opened(Result<void, StoreError> result) { open_result = std::move(result); }
  void on_saved(Result<void, ports::IoError> result) { save_results.push_back(result); }

  Result<std::uint64_t, StoreError> create(const CreateOptions& options) {
    store->create(options, Callback<void(Result<std::uint64_t, StoreError>)>::to<&StoreBench::on_created>(*this));
    run();
    return *create_result;
  }
  Result<void, StoreError> open() {
    store->open(Callback<void(Result<void, StoreError>)>::to<&StoreBench::on_opened>(*this));
    EXPECT_FALSE(open_result.has_value()) << "never from inside the call";
    run();
    return *open_result;
  }
  void begin_save(const ResourceRecord& record) {
    store->save(record, Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(*this));
  }
  void begin_save_bitmap() {
    store->save_bitmap(Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(*this));
  }
  Result<void, ports::IoError> save(const ResourceRecord& record) {
    begin_save(record);
    run();
    return save_results.back();
  }
  Result<void, ports::IoError> save_bitmap() {
    begin_save_bitmap();
    run();
    return save_results.back();
  }
};

[[nodiscard]] inline StoreErrorKind kind_of(const Result<void, StoreError>& result) {
  EXPECT_FALSE(result.has_value());
  if (result) return StoreErrorKind::io;
  EXPECT_GT(result.error().sentence.size(), 20u);
  return result.error().kind;
}

}  // namespace replblk::blockdev::test
