// errno to the error families of the ports: one place, so that no caller guesses. Tables in error_map.cpp, each
// tested over every errno there is. Takes positive errno values; 0 is a bug (asserted).
#pragma once

#include "ports/disk.hpp"
#include "ports/stream.hpp"

namespace replblk::runtime {

[[nodiscard]] ports::IoError io_error_from(int error_number) noexcept;
/// Of an established connection.
[[nodiscard]] ports::StreamError stream_error_from(int error_number) noexcept;
/// Of socket(), bind() or connect() on the way to a connection.
[[nodiscard]] ports::StreamError connect_error_from(int error_number) noexcept;
[[nodiscard]] ports::ListenError listen_error_from(int error_number) noexcept;

/// The operation did nothing and may simply be issued again.
[[nodiscard]] bool is_transient(int error_number) noexcept;

}  // namespace replblk::runtime
