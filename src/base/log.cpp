#include "base/log.hpp"

#include <fmt/format.h>

#include <exception>

namespace replblk {

namespace {

LogSink log_sink = nullptr;
LogLevel lowest_level = LogLevel::info;

}  // namespace

void set_log_sink(LogSink sink, LogLevel lowest) noexcept {
  log_sink = sink;
  lowest_level = lowest;
}

bool is_logged(LogLevel level) noexcept { return log_sink != nullptr && level >= lowest_level; }

void write_log(LogLevel level, fmt::string_view format, fmt::format_args arguments) noexcept {
  try {
    fmt::memory_buffer line;
    fmt::vformat_to(std::back_inserter(line), format, arguments);
    log_sink(level, std::string_view(line.data(), line.size()));
  } catch (const std::exception&) {
    // A line that cannot be formatted is not worth the daemon.
  }
}

}  // namespace replblk
