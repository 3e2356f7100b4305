// What one reactor offers to the node that lives on it: all ports in one place, so that a Node gets its whole
// outside as one argument. References, owned by the runtime or the simulator, alive longer than the node.
#pragma once

#include "base/buffer_pool.hpp"
#include "ports/datagram.hpp"
#include "ports/disk.hpp"
#include "ports/handlers.hpp"
#include "ports/loop.hpp"
#include "ports/stream.hpp"
#include "ports/undo_files.hpp"

namespace replblk::ports {

struct World {
  Loop& loop;
  Random& random;
  Network& network;
  BufferPool& buffers;
  Handlers* handlers = nullptr;     ///< null: there are none
  Datagrams* datagrams = nullptr;   ///< null: nothing but the replication connection carries heartbeats
  UndoFiles* undo_files = nullptr;  ///< null: nothing is kept
};

}  // namespace replblk::ports
