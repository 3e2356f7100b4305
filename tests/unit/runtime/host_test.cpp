// What comes from the rest of the host: other threads, signals, randomness, identity, foreign signatures.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/host_identity.hpp"
#include "runtime/mailbox.hpp"
#include "runtime/signals.hpp"
#include "runtime/signature_probe.hpp"
#include "runtime/system_random.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using test::make_reactor;
using test::turn_until;

struct Reader {
  void on_message(std::unique_ptr<int>& message) { seen.push_back(*message); }
  void on_signal(int number) { signals.push_back(number); }
  std::vector<int> seen;
  std::vector<int> signals;
};

// If it failed, an operator's command would be lost, doubled or reordered, or the sleeping loop not woken.
TEST(Mailbox, Messages_of_another_thread_arrive_in_order_each_once) {
  auto reactor = make_reactor();
  Reader reader;
  Mailbox<std::unique_ptr<int>> box(64);
  box.attach(*reactor, Callback<void(std::unique_ptr<int>&)>::to<&Reader::on_message>(reader));
  constexpr int kCount = 20'000;
  std::thread writer([&box] {
    for (int number = 0; number < kCount;) {
      auto message = std::make_unique<int>(number);
      if (box.post(std::move(message))) {
        ++number;
      } else {
        std::this_thread::yield();
      }
    }
  });
  const bool is_whole = turn_until(*reactor, [&] { return reader.seen.size() == kCount; });
  writer.join();
  ASSERT_TRUE(is_whole);
  for (int number = 0; number < kCount; ++number) ASSERT_EQ(reader.seen[static_cast<std::size_t>(number)], number);
}

// If it failed, a stuck reactor would let the control thread eat all memory.
TEST(Mailbox, A_full_box_refuses_and_a_detached_one_calls_nobody) {
  auto reactor = make_reactor();
  Reader reader;
  Mailbox<std::unique_ptr<int>> box(2);
  EXPECT_TRUE(box.post(std::make_unique<int>(1)));
  EXPECT_TRUE(box.post(std::make_unique<int>(2)));
  EXPECT_FALSE(box.post(std::make_unique<int>(3)));
  box.attach(*reactor, Callback<void(std::unique_ptr<int>&)>::to<&Reader::on_message>(reader));
  ASSERT_TRUE(turn_until(*reactor, [&] { return reader.seen.size() == 2; }));
  box.detach();
  EXPECT_TRUE(box.post(std::make_unique<int>(4)));
  test::turn_for(*reactor, milliseconds(10));
  EXPECT_EQ(reader.seen, (std::vector<int>{1, 2}));
}

// If it failed, systemctl stop would kill the daemon in mid-write.
TEST(Signals, SIGTERM_SIGINT_and_SIGHUP_arrive_in_the_loop_and_the_mask_is_restored) {
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, nullptr, &before);
  auto reactor = make_reactor();
  Reader reader;
  {
    const Signals signals(*reactor, Callback<void(int)>::to<&Reader::on_signal>(reader));
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
      reader.signals.clear();
      ASSERT_EQ(::kill(::getpid(), number), 0);
      ASSERT_TRUE(turn_until(*reactor, [&] { return !reader.signals.empty(); }));
      EXPECT_EQ(reader.signals, std::vector<int>{number});
    }
  }
  sigset_t after;
  pthread_sigmask(SIG_BLOCK, nullptr, &after);
  for (const int number : {SIGTERM, SIGINT, SIGHUP})
    EXPECT_EQ(sigismember(&after, number), sigismember(&before, number));
}

// If it failed, challenges of the peer handshake would repeat.
TEST(SystemRandom, Fills_every_byte_and_never_repeats) {
  SystemRandom random;
  std::vector<std::byte> bytes(3 << 20);
  random.fill(bytes);
  std::vector<std::size_t> counts(256);
  for (const std::byte byte : bytes) ++counts[std::to_integer<std::size_t>(byte)];
  for (const std::size_t count : counts) EXPECT_NEAR(static_cast<double>(count), 12288.0, 1500.0);
  EXPECT_NE(random.next_u64(), random.next_u64());
}

// If it failed, the node would not find itself in node.conf, or take every restart for a reboot.
TEST(HostIdentity, Name_and_boot_are_known_and_stable) {
  EXPECT_FALSE(host_name().empty());
  const auto first = read_boot_id();
  ASSERT_TRUE(first.has_value()) << first.error();
  EXPECT_FALSE(first->is_none());
  EXPECT_EQ(*first, *read_boot_id());
}

class ProbedFile {
 public:
  ProbedFile() {
    const int fd = ::mkstemp(path_.data());
    EXPECT_EQ(::ftruncate(fd, 64 << 20), 0);
    ::close(fd);
  }
  ProbedFile(const ProbedFile&) = delete;
  ProbedFile& operator=(const ProbedFile&) = delete;
  ~ProbedFile() { ::unlink(path_.c_str()); }
  void put(std::streamoff offset, std::string_view text) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(offset);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_ = "/var/tmp/replblk-probe-test-XXXXXX";
};

// If it failed, create-md would destroy somebody's file system without asking.
TEST(SignatureProbe, Foreign_signatures_are_named_with_their_place_and_a_blank_disk_has_none) {
  const ProbedFile file;
  auto found = probe_signatures(file.path());
  ASSERT_TRUE(found.has_value()) << found.error();
  EXPECT_TRUE(found->empty());

  file.put(0, std::string_view("LUKS\xba\xbe\0\x01", 8));
  // A DOS partition table.
  file.put(446, std::string("\x00\x20\x21\x00\x83\x51\x01\x01\x00\x08\x00\x00\x00\x10\x00\x00", 16));
  file.put(510, "\x55\xaa");
  found = probe_signatures(file.path());
  ASSERT_TRUE(found.has_value()) << found.error();
  EXPECT_EQ(*found, (std::vector<Signature>{{"crypto_LUKS", 0}, {"dos", 510}}));

  const int fd = ::open(file.path().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(probe_signatures(fd), found);
  ::close(fd);
  EXPECT_EQ(probe_signatures("/nonexistent").error(),
            "disk /nonexistent: no such file or device; create it or correct the path in the configuration");
}

}  // namespace
}  // namespace replblk::runtime
