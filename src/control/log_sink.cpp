#include "control/log_sink.hpp"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/assert.hpp"

namespace replblk::control {

namespace {

constexpr std::size_t kQueueLines = 8192;

std::shared_ptr<spdlog::async_logger> logger;
bool has_priorities = false;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  RB_UNREACHABLE();
}

/// sd-daemon(3): syslog's numbers.
std::string_view priority(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "<7>";
    case LogLevel::info:
      return "<6>";
    case LogLevel::warning:
      return "<4>";
    case LogLevel::error:
      return "<3>";
  }
  RB_UNREACHABLE();
}

void write_line(LogLevel level, std::string_view line) {
  if (logger == nullptr) return;
  if (has_priorities) {
    logger->log(to_spdlog(level), "{}{}", priority(level), line);
  } else {
    logger->log(to_spdlog(level), "{}", line);
  }
}

/// systemd.exec(5): the variable names the device and inode of the journal's socket, so that one inherited from
/// elsewhere does not deceive.
bool is_stderr_the_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status{};
  if (stream == nullptr || ::fstat(2, &status) != 0) return false;
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == stream;
}

}  // namespace

LogSink::LogSink(LogLevel lowest) {
  has_priorities = is_stderr_the_journal();
  spdlog::init_thread_pool(kQueueLines, 1);
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  logger = std::make_shared<spdlog::async_logger>("replblkd", std::move(sink), spdlog::thread_pool(),
                                                  spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern(has_priorities ? "%v" : "%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  logger->set_level(spdlog::level::trace);  // base/log has its own threshold
  set_log_sink(write_line, lowest);
}

void LogSink::finish() noexcept {
  if (logger == nullptr) return;
  set_log_sink(nullptr, LogLevel::info);
  logger.reset();
  spdlog::shutdown();  // joins the thread after the last line
}

}  // namespace replblk::control
