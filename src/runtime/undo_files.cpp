#include "runtime/undo_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "runtime/descriptor.hpp"
#include "runtime/disk_file.hpp"

namespace replblk::runtime {

namespace {

/// A file system that does not answer must not hold the node for ever.
constexpr Duration kTimeout = seconds(30);

std::string sentence(const std::string& path, int error_number) {
  return fmt::format("{}: {}", path, std::strerror(error_number));
}

class SparseUndoFile final : public ports::UndoFile {
 public:
  SparseUndoFile(std::string path, std::unique_ptr<DiskFile> disk) : path_(std::move(path)), disk_(std::move(disk)) {}
  ~SparseUndoFile() override {
    disk_.reset();
    if (!is_kept_) ::unlink(partial(path_).c_str());
  }
  [[nodiscard]] ports::Disk& disk() noexcept override { return *disk_; }
  [[nodiscard]] Result<void, std::string> keep() override {
    if (::rename(partial(path_).c_str(), path_.c_str()) != 0) return fail(sentence(path_, errno));
    is_kept_ = true;
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    const Descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (opened.get() < 0 || ::fsync(opened.get()) != 0) return fail(sentence(directory, errno));
    return {};
  }
  [[nodiscard]] static std::string partial(const std::string& path) { return path + ".partial"; }

 private:
  std::string path_;
  std::unique_ptr<DiskFile> disk_;
  bool is_kept_ = false;
};

}  // namespace

Result<std::unique_ptr<ports::UndoFile>, std::string> SparseUndoFiles::create(const std::string& path,
                                                                              std::uint64_t size_bytes) {
  const std::string partial = SparseUndoFile::partial(path);
  const Descriptor made(
      ::open(partial.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (made.get() < 0) return fail(sentence(partial, errno));
  if (::ftruncate(made.get(), static_cast<off_t>(size_bytes)) != 0) {
    const int error_number = errno;
    ::unlink(partial.c_str());
    return fail(sentence(partial, error_number));
  }
  auto disk = open_disk({.path = partial, .is_buffered = true, .in_flight_max = 16, .timeout = kTimeout}, reactor_);
  if (!disk) {
    ::unlink(partial.c_str());
    return fail(disk.error());
  }
  return std::make_unique<SparseUndoFile>(path, std::move(*disk));
}

}  // namespace replblk::runtime
