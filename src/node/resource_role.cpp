// Primary and secondary: the administrator's verbs, and what a role is made of. Who has it the MembershipMachine says.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using membership::Service;

namespace {

/// A verb is answered when it has come about. What takes longer than a lease, a flush and an arbiter's answers waits
/// for something that may never come: then the sentence says for what.
constexpr Duration kVerbTimeout = seconds(8);

AdminReply refused(std::string message) { return {AdminOutcome::refused, std::move(message), {}}; }
AdminReply done(std::string message) { return {AdminOutcome::done, std::move(message), {}}; }

}  // namespace

// ---- verbs -----------------------------------------------------------------------------------------------------

/// A verb that was taken up: answered by answer_done_verbs().
void Resource::open_verb(Wish wish, AdminReplyCallback reply, std::string outcome) {
  open_verbs_.push_back(
      {wish, std::move(reply), std::move(outcome), world_.loop.now() + kVerbTimeout, record_.configuration.is_pair()});
}

void Resource::answer_open_verbs(const std::string& what) {
  for (const OpenVerb& verb : std::exchange(open_verbs_, {}))
    verb.reply({AdminOutcome::failed, fmt::format("{}: {}", config_.name, what), {}});
}

void Resource::answer_done_verbs() {
  if (open_verbs_.empty()) return;
  const Instant now = world_.loop.now();
  std::vector<std::pair<AdminReplyCallback, AdminReply>> answers;
  std::erase_if(open_verbs_, [&](const OpenVerb& verb) {
    if (is_wish_fulfilled(verb.wish)) {
      answers.emplace_back(verb.reply, done(fmt::format("{}: {}", config_.name, outcome_of(verb))));
      return true;
    }
    if (is_overtaken(verb)) {
      RB_PROBE("peer_left_behind_while_the_role_was_given_up");
      answers.emplace_back(verb.reply,
                           AdminReply{AdminOutcome::failed,
                                      fmt::format("{}: {} was left behind meanwhile, and this copy is the only good "
                                                  "one: this node stays Primary",
                                                  config_.name, cluster_.nodes[peer()].name),
                                      {}});
      return true;
    }
    if (now < verb.deadline) return false;
    if (verb.wish == Wish::recorded) {
      answers.emplace_back(
          verb.reply,
          AdminReply{AdminOutcome::failed,
                     fmt::format("{}: in force, but not recorded yet: the disk has not answered", config_.name),
                     {}});
      return true;
    }
    if (verb.wish == Wish::primary) machine_->drop_wish();
    const std::string& why = machine_->reason();
    answers.emplace_back(
        verb.reply,
        AdminReply{AdminOutcome::failed,
                   fmt::format("{}: it has not come about: {}", config_.name,
                               why.empty() ? "the nodes are still agreeing; look at `status` and try again" : why),
                   {}});
    return true;
  });
  for (const auto& [reply, answer] : answers) reply(answer);
}

/// The role was to be given up beside the peer, which could not agree: what was proposed to it is over.
bool Resource::is_overtaken(const OpenVerb& verb) const {
  const bool gives_up = verb.wish == Wish::secondary || verb.wish == Wish::peer_primary;
  return gives_up && verb.had_peer && is_primary_ && persists_out_ == 0 && record_.configuration.is_sole(self()) &&
         machine_->service() == Service::serving;
}

std::string Resource::outcome_of(const OpenVerb& verb) const {
  if (verb.wish == Wish::recorded)
    return verb.outcome + (is_copy_failed_ ? ", until its disk is opened again: it cannot be recorded" : "");
  const std::string now_is = verb.wish == Wish::primary     ? "primary"
                             : verb.wish == Wish::secondary ? "secondary"
                                                            : cluster_.nodes[peer()].name + " is primary";
  return fmt::format("{} at term {}", now_is, record_.configuration.term);
}

bool Resource::is_wish_fulfilled(Wish wish) const {
  if (wish == Wish::primary) return is_primary_ && machine_->service() == Service::serving;
  if (wish == Wish::recorded) return persists_out_ == 0;
  if (wish == Wish::peer_primary) return !is_primary_ && persists_out_ == 0 && record_.configuration.primary == peer();
  return !is_primary_ && persists_out_ == 0 && record_.configuration.primary != self();
}

/// No half promotion: whether the virtual IPs can be held is known before the role is taken.
void Resource::make_primary(bool is_forced, AdminReplyCallback reply) {
  if (virtual_ips_.empty() || is_primary_ || is_stopping_ || !is_opened_) return promote(is_forced, reply);
  if (virtual_ips_.is_probing()) {
    return reply(
        refused(config_.name + ": a promotion is under way: the network is asked who has the virtual IP; try again"));
  }
  virtual_ips_.probe([this, is_forced, answer = std::move(reply)](const Result<void, std::string>& result) {
    if (!result && !is_forced) {
      return answer(refused(
          fmt::format("{}: {}; with --force the node becomes primary without it", config_.name, result.error())));
    }
    if (!result) {
      log_warning("resource {}: becomes primary all the same, by force: {}", config_.name, result.error());
      is_unfit_by_force_ = true;
    }
    promote(is_forced, answer);
  });
}

void Resource::promote(bool is_forced, const AdminReplyCallback& reply) {
  const auto refuse = [&](const std::string& why) { reply(refused(fmt::format("{}: {}", config_.name, why))); };
  if (is_stopping_) return refuse("the resource is being taken down");
  if (is_copy_failed_ || !are_volumes_open()) {
    return refuse("a volume is not available here: see `status`; nothing can be served without its disk");
  }
  if (!is_opened_) return refuse("the volumes are still being opened; try again");
  if (is_wish_fulfilled(Wish::primary)) return reply(done(fmt::format("{}: already primary", config_.name)));
  if (is_connected() && is_peer_primary_) {
    return refuse("the peer is primary; make it secondary first (two primaries are never allowed)");
  }
  is_discarding_ = false;  // Who serves a copy does not give it up.
  const bool is_whole = !record_.is_inconsistent && !record_.is_outdated && !record_.generations.current.is_none();
  const bool may_without_force =
      is_whole && (phase_ == LinkPhase::established || is_connected() || record_.configuration.is_sole(self()) ||
                   machine_->has_survived_connected() || !std::holds_alternative<NoArbiterConfig>(cluster_.arbiter));
  const bool takes_force =
      is_forced && (machine_->is_force_needed(world_.loop.now()) ||
                    !(is_whole && (phase_ == LinkPhase::established || membership::may_serve_alone(record_, self()))));
  if (takes_force) {
    RB_PROBE("forced_primary");
    log_warning("resource {}: forced primary: this copy is kept whatever the peer holds", config_.name);
  } else if (!may_without_force && !is_forced) {
    if (record_.is_inconsistent) return refuse("the local copy is Inconsistent: a resync towards it has not finished");
    if (record_.is_outdated) return refuse("the local copy is Outdated: the peer went on without it");
    if (record_.generations.current.is_none()) {
      return refuse(
          "the local copy is Inconsistent: it was just created. On the node whose data is to be kept run "
          "`replblkctl primary --force` once");
    }
    return refuse(
        "the peer has not been seen since this daemon started, so it may have newer data or serve right now; "
        "if it is surely down and this copy is the one to keep, use --force");
  }
  const Instant now = world_.loop.now();
  const membership::Verdict verdict = takes_force ? machine_->force_primary(now) : machine_->make_primary(now);
  if (!verdict.is_accepted) return refuse(verdict.message);
  open_verb(Wish::primary, reply);
  pump();
}

void Resource::make_secondary(AdminReplyCallback reply) {
  if (!is_opened_ || is_stopping_) return reply(refused(config_.name + ": the resource is not open"));
  if (is_wish_fulfilled(Wish::secondary)) return reply(done(config_.name + ": already secondary"));
  const membership::Verdict verdict = machine_->make_secondary(world_.loop.now());
  if (!verdict.is_accepted) return reply(refused(config_.name + ": " + verdict.message));
  open_verb(Wish::secondary, std::move(reply));
  pump();
}

void Resource::switch_over(AdminReplyCallback reply) {
  const auto refuse = [&](const std::string& why) { reply(refused(fmt::format("{}: {}", config_.name, why))); };
  if (!has_peer()) return refuse("there is no second node in the configuration");
  if (!is_opened_ || is_stopping_ || is_copy_failed_) return refuse("the resource is not open here; see `status`");
  if (!is_primary_ && is_peer_primary_)
    return refuse(fmt::format("{} is Primary: run it there", cluster_.nodes[peer()].name));
  const membership::Verdict verdict = machine_->switch_over(world_.loop.now());
  if (!verdict.is_accepted) return refuse(verdict.message);
  open_verb(Wish::peer_primary, std::move(reply));
  pump();
}

/// On every volume, so that it holds until it is taken back; what a copy that has failed is told ends with it.
void Resource::record_wish(bool blockdev::ResourceRecord::* wish, bool is_wanted) {
  blockdev::ResourceRecord next = record_;
  next.*wish = is_wanted;
  if (!is_copy_failed_) return persist(next, [this] { answer_done_verbs(); });
  record_ = next;
}

void Resource::set_standby(bool is_standby, AdminReplyCallback reply) {
  if (!is_opened_ || is_stopping_) return reply(refused(config_.name + ": the resource is not open"));
  if (is_standby && is_primary_ && phase_ == LinkPhase::established && machine_->is_peer_addressless()) {
    return reply(
        refused(fmt::format("{}: {} cannot hold the virtual IP, and the role would go there: `status` there says why",
                            config_.name, cluster_.nodes[peer()].name)));
  }
  log_info("resource {}: {}", config_.name,
           is_standby ? "standby: this node takes no role" : "this node may take a role again");
  machine_->set_standby(is_standby, world_.loop.now());
  open_verb(is_standby && is_primary_ && !machine_->is_in_maintenance() ? Wish::secondary : Wish::recorded,
            std::move(reply), is_standby ? "standby until unstandby on this node" : "no standby");
  record_wish(&blockdev::ResourceRecord::is_standby, is_standby);
  pump();
}

void Resource::set_maintenance(bool is_maintenance, const AdminReplyCallback& reply) {
  if (!is_opened_ || is_stopping_) return reply(refused(config_.name + ": the resource is not open"));
  log_info("resource {}: maintenance {}", config_.name, is_maintenance ? "on: no role moves by itself" : "off");
  machine_->set_maintenance(is_maintenance, world_.loop.now());
  const char* end = machine_->is_peer_in_maintenance() ? "no maintenance here, but the peer is heard and says so there"
                                                       : "no maintenance";
  open_verb(Wish::recorded, reply,
            is_maintenance ? "maintenance of both nodes until maintenance-off on this node" : end);
  record_wish(&blockdev::ResourceRecord::is_maintenance, is_maintenance);
  pump();
}

/// So that the peer does not hand over to a node that initiators would not find, and takes over from one that they do
/// not find any more.
void Resource::look_at_virtual_ips(Instant now) {
  constexpr Duration kLookInterval = seconds(1);
  /// A cable that is plugged in anew moves no role.
  constexpr Duration kUnfitMax = seconds(2);
  if (virtual_ips_.empty() || virtual_ips_.is_probing()) return;
  if (now - last_virtual_ip_look_ < kLookInterval) return;
  last_virtual_ip_look_ = now;
  const bool is_fit = virtual_ips_.look();
  machine_->set_addressless(!is_fit, now);
  if (is_fit) is_unfit_by_force_ = false;
  if (is_fit || !is_primary_ || is_unfit_by_force_) {
    virtual_ips_unfit_since_.reset();
  } else if (!virtual_ips_unfit_since_) {
    virtual_ips_unfit_since_ = now;
  } else if (now - *virtual_ips_unfit_since_ >= kUnfitMax && may_move_by_itself() &&
             machine_->switch_over(now).is_accepted) {
    RB_PROBE("role_follows_the_virtual_ip");
    log_warning("resource {}: the virtual IP cannot be held here, so the role goes to {}", config_.name,
                cluster_.nodes[peer()].name);
    virtual_ips_unfit_since_.reset();
  }
  pump();
}

bool Resource::may_move_by_itself() const {
  return is_primary_ && phase_ == LinkPhase::established && !machine_->is_in_maintenance() && open_verbs_.empty() &&
         !is_stopping_;
}

void Resource::fail_back(Instant now) {
  if (phase_ != LinkPhase::established) established_at_ = now;
  if (!config_.failback_after || config_.preferred_node != peer() || !may_move_by_itself()) return;
  if (now - established_at_ < *config_.failback_after) return;
  established_at_ = now;
  if (!machine_->switch_over(now).is_accepted) return;
  log_info("resource {}: the role goes back to {}, the preferred node", config_.name, cluster_.nodes[peer()].name);
  pump();
}

// ---- what a role is made of ------------------------------------------------------------------------------------

void Resource::serve() {
  RB_ASSERT(!is_copy_failed_);
  is_primary_ = true;
  if (undo_ != nullptr) undo_->stop();  // What it keeps is about to change.
  for (const auto& volume : volumes_) {
    volume->mirror->set_serving(true);
    if (phase_ == LinkPhase::established) volume->mirror->set_mirroring(true);
  }
  thaw_all();
  device_->load_reservations(record_.reservations);
  open_to_initiators();
  log_info("resource {}: role Primary, term {}{}", config_.name, record_.configuration.term,
           record_.configuration.is_pair() ? "" : ", alone");
  if (has_peer() && !record_.configuration.is_pair() && std::holds_alternative<NoArbiterConfig>(cluster_.arbiter)) {
    log_warning(
        "resource {}: no arbiter is configured: this node serves without knowing that the peer has stopped; if it "
        "still "
        "serves, the copies split, and the split is reported when the nodes meet",
        config_.name);
  }
  send_role(virtual_ips_.are_held());  // The peer lets its last initiators go then.
}

void Resource::open_to_initiators() {
  target_->set_serving(true);
  was_virtual_ip_given() ? virtual_ips_.take_over() : virtual_ips_.hold();
}

/// By the peer, which had it until just now.
bool Resource::was_virtual_ip_given() const {
  constexpr Duration kMoveMax = seconds(1);
  return addresses_given_at_ && world_.loop.now() - *addresses_given_at_ < kMoveMax;
}

/// protocol.md 3.8, down, whatever disks do; but the connections are reset before the virtual IP goes: the kernel sends
/// nothing any more from an address that the node has not, and initiators would hear of it from the new Primary only.
void Resource::close_to_initiators(const std::string& reason, Duration move_time) {
  target_->set_serving(false);
  target_->drop_all(reason, move_time);
  virtual_ips_.release();
}

void Resource::step_down(const std::string& reason) {
  const bool had_addresses = virtual_ips_.are_held();
  is_primary_ = is_unfit_by_force_ = false;
  end_verify("this node became secondary");
  for (const auto& volume : volumes_) volume->mirror->set_serving(false);
  close_to_initiators(reason.empty() ? "the node becomes secondary" : reason, iscsi::Target::kMoveTime);
  refuse_keeping();
  for (const auto& volume : volumes_) volume->mirror->thaw();
  log_info("resource {}: role Secondary{}{}", config_.name, reason.empty() ? "" : ": ", reason);
  send_role(had_addresses);
}

/// Until this node has introduced itself the Introduction will say it.
void Resource::send_role(bool has_addresses) {
  if (channel_ == nullptr || !my_introduction_.has_value()) return;
  channel_->send(replication::RoleChange{is_primary_, has_addresses});
}

}  // namespace replblk::node
