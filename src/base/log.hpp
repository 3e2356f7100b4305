// The log facade: log_info("peer {} connected", name). The sink is set once by main (spdlog, asynchronous) or by the
// simulator (its trace); without one, lines go nowhere. The one piece of global state in the project.
// Not for the data path: nothing is logged per I/O.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string_view>

namespace replblk {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

using LogSink = void (*)(LogLevel level, std::string_view line);

void set_log_sink(LogSink sink, LogLevel lowest) noexcept;
[[nodiscard]] bool is_logged(LogLevel level) noexcept;
void write_log(LogLevel level, fmt::string_view format, fmt::format_args arguments) noexcept;

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... arguments) {
  if (is_logged(LogLevel::debug)) write_log(LogLevel::debug, format, fmt::make_format_args(arguments...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... arguments) {
  if (is_logged(LogLevel::info)) write_log(LogLevel::info, format, fmt::make_format_args(arguments...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... arguments) {
  if (is_logged(LogLevel::warning)) write_log(LogLevel::warning, format, fmt::make_format_args(arguments...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... arguments) {
  if (is_logged(LogLevel::error)) write_log(LogLevel::error, format, fmt::make_format_args(arguments...));
}

}  // namespace replblk
