// Tells systemd (or whoever set NOTIFY_SOCKET) how the service is: sd_notify(3)'s protocol, one datagram. Does nothing
// without that variable. Called by main.
#pragma once

#include <string_view>

namespace replblk::control {

/// "READY=1", "STOPPING=1", "STATUS=..."; lines separated by line feeds.
void notify_service(std::string_view state) noexcept;

}  // namespace replblk::control
