#include "scsi/persistent_reservation.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "base/assert.hpp"

namespace replblk::scsi {

std::optional<PersistentReservation> PersistentReservation::from(State state) {
  if (state.registrations.size() > kRegistrationsMax) return std::nullopt;
  for (std::size_t index = 0; index < state.registrations.size(); ++index) {
    const Registration& registration = state.registrations[index];
    const auto later = std::span(state.registrations).subspan(index + 1);
    if (registration.key == 0) return std::nullopt;
    if (std::ranges::find(later, registration.port, &Registration::port) != later.end()) return std::nullopt;
  }
  const bool has_one_holder = state.type != ReservationType::none && !is_all_registrants(state.type);
  if (state.holder.has_value() != has_one_holder) return std::nullopt;
  if (has_one_holder && *state.holder >= state.registrations.size()) return std::nullopt;
  if (state.type != ReservationType::none && state.registrations.empty()) return std::nullopt;
  PersistentReservation reservation;
  reservation.generation_ = state.generation;
  reservation.type_ = state.type;
  if (has_one_holder) reservation.holder_ = state.registrations[*state.holder].port;
  reservation.registrations_ = std::move(state.registrations);
  return reservation;
}

PersistentReservation::State PersistentReservation::state() const {
  State state{generation_, type_, std::nullopt, registrations_};
  if (holder_.has_value()) {
    const auto found = std::ranges::find(registrations_, *holder_, &Registration::port);
    RB_ASSERT(found != registrations_.end());
    state.holder = static_cast<std::size_t>(found - registrations_.begin());
  }
  return state;
}

PersistentReservation::Registration* PersistentReservation::find(const NexusInfo& port) noexcept {
  const auto found = std::ranges::find(registrations_, port, &Registration::port);
  return found == registrations_.end() ? nullptr : &*found;
}

const PersistentReservation::Registration* PersistentReservation::find(const NexusInfo& port) const noexcept {
  const auto found = std::ranges::find(registrations_, port, &Registration::port);
  return found == registrations_.end() ? nullptr : &*found;
}

bool PersistentReservation::is_registered_with(const NexusInfo& port, std::uint64_t key) const noexcept {
  const Registration* registration = find(port);
  return registration != nullptr && registration->key == key;
}

bool PersistentReservation::is_holder(const NexusInfo& port) const noexcept {
  if (is_all_registrants(type_)) return find(port) != nullptr;
  return holder_.has_value() && *holder_ == port;
}

std::uint64_t PersistentReservation::holder_key() const noexcept {
  return holder_.has_value() ? find(*holder_)->key : 0;
}

bool PersistentReservation::permits(const NexusInfo& port, ReservationClass command) const noexcept {
  if (type_ == ReservationType::none || command == ReservationClass::free) return true;
  if (command == ReservationClass::reading && !excludes_readers(type_)) return true;
  return includes_registrants(type_) ? find(port) != nullptr : is_holder(port);
}

void PersistentReservation::drop_reservation() noexcept {
  type_ = ReservationType::none;
  holder_.reset();
}

void PersistentReservation::tell_others(const NexusInfo& but, UnitAttention condition, Answer& answer) const {
  for (const Registration& registration : registrations_) {
    if (registration.port != but) answer.notices.push_back({registration.port, condition});
  }
}

/// SPC-4 5.13.11.2: the reservation goes with its holder, or with the last registrant of an all-registrants type; those
/// who had a part in it learn that they have none any more.
void PersistentReservation::unregister(const NexusInfo& port, Answer& answer) {
  const bool was_holder = is_holder(port);
  std::erase_if(registrations_, [&](const Registration& registration) { return registration.port == port; });
  if (!is_reserved() || !was_holder) return;
  if (is_all_registrants(type_) && !registrations_.empty()) return;
  if (includes_registrants(type_)) tell_others(port, UnitAttention::reservations_released, answer);
  drop_reservation();
}

PersistentReservation::Answer PersistentReservation::register_key(const NexusInfo& port, std::uint64_t key,
                                                                  std::uint64_t action_key, bool ignores_existing) {
  Answer answer;
  Registration* registration = find(port);
  const std::uint64_t present = registration == nullptr ? 0 : registration->key;
  if (!ignores_existing && key != present) {
    answer.outcome = ReservationOutcome::conflict;
    return answer;
  }
  if (registration == nullptr && action_key == 0) return answer;  // SPC-4 table 55: nothing to do
  if (registration == nullptr && registrations_.size() == kRegistrationsMax) {
    answer.outcome = ReservationOutcome::no_room;
    return answer;
  }
  ++generation_;
  if (registration == nullptr) {
    registrations_.push_back({port, action_key});
  } else if (action_key != 0) {
    registration->key = action_key;
  } else {
    unregister(port, answer);
  }
  return answer;
}

PersistentReservation::Answer PersistentReservation::reserve(const NexusInfo& port, std::uint64_t key,
                                                             ReservationType type) {
  Answer answer;
  // SPC-4 5.13.9: the holder may say the same again; who wants another type releases first.
  if (!is_registered_with(port, key) || (is_reserved() && !(is_holder(port) && type == type_))) {
    answer.outcome = ReservationOutcome::conflict;
  } else if (!is_reserved()) {
    type_ = type;
    if (!is_all_registrants(type)) holder_ = port;
  }
  return answer;
}

PersistentReservation::Answer PersistentReservation::release(const NexusInfo& port, std::uint64_t key,
                                                             ReservationType type) {
  Answer answer;
  if (!is_registered_with(port, key)) {
    answer.outcome = ReservationOutcome::conflict;
  } else if (is_reserved() && is_holder(port)) {
    if (type != type_) {
      answer.outcome = ReservationOutcome::invalid_release;
      return answer;
    }
    if (includes_registrants(type_)) tell_others(port, UnitAttention::reservations_released, answer);
    drop_reservation();
  }
  return answer;
}

PersistentReservation::Answer PersistentReservation::clear(const NexusInfo& port, std::uint64_t key) {
  Answer answer;
  if (!is_registered_with(port, key)) {
    answer.outcome = ReservationOutcome::conflict;
    return answer;
  }
  tell_others(port, UnitAttention::reservations_preempted, answer);
  registrations_.clear();
  drop_reservation();
  ++generation_;
  return answer;
}

PersistentReservation::Answer PersistentReservation::register_and_move(const NexusInfo& port, std::uint64_t key,
                                                                       std::uint64_t action_key, const NexusInfo& to,
                                                                       bool unregisters) {
  RB_ASSERT(port != to);
  Answer answer;
  if (!is_registered_with(port, key)) {
    answer.outcome = ReservationOutcome::conflict;
  } else if (!is_reserved()) {
    answer.outcome = ReservationOutcome::no_reservation;
  } else if (is_all_registrants(type_) || !is_holder(port)) {
    answer.outcome = ReservationOutcome::conflict;
  } else if (action_key == 0) {
    answer.outcome = ReservationOutcome::invalid_key;
  } else if (find(to) == nullptr && registrations_.size() == kRegistrationsMax && !unregisters) {
    answer.outcome = ReservationOutcome::no_room;
  }
  if (answer.outcome != ReservationOutcome::good) return answer;
  ++generation_;
  if (unregisters) {
    std::erase_if(registrations_, [&](const Registration& registration) { return registration.port == port; });
  }
  if (Registration* registration = find(to)) {
    registration->key = action_key;
  } else {
    registrations_.push_back({to, action_key});
  }
  holder_ = to;
  return answer;
}

PersistentReservation::Answer PersistentReservation::preempt(const NexusInfo& port, std::uint64_t key,
                                                             std::uint64_t action_key, ReservationType type,
                                                             bool aborts) {
  Answer answer;
  if (!is_registered_with(port, key)) {
    answer.outcome = ReservationOutcome::conflict;
    return answer;
  }
  // SPC-4 table 54: a key of zero means everybody, and only all registrants can be meant by it.
  const bool means_all = is_all_registrants(type_) && action_key == 0;
  if (action_key == 0 && !means_all) {
    answer.outcome = ReservationOutcome::invalid_key;
    return answer;
  }
  const bool takes_over = means_all || (holder_.has_value() && holder_key() == action_key);
  const bool is_known =
      means_all || std::ranges::find(registrations_, action_key, &Registration::key) != registrations_.end();
  if (!is_known) {
    answer.outcome = ReservationOutcome::conflict;
    return answer;
  }
  ++generation_;
  const ReservationType before = type_;
  std::erase_if(registrations_, [&](const Registration& registration) {
    const bool is_preempted = means_all || registration.key == action_key;
    // Who takes over keeps its own registration, whatever its key.
    if (!is_preempted || (takes_over && registration.port == port)) return false;
    if (registration.port != port)
      answer.notices.push_back({registration.port, UnitAttention::registrations_preempted});
    if (aborts) answer.aborted.push_back(registration.port);
    return true;
  });
  if (takes_over) {
    // SPC-4 5.13.11.3: those who stay registered learn that the reservation is another one.
    if (before != type) tell_others(port, UnitAttention::reservations_released, answer);
    drop_reservation();
    type_ = type;
    if (!is_all_registrants(type)) holder_ = port;
  } else if (registrations_.empty()) {
    drop_reservation();
  }
  RB_ASSERT(!holder_.has_value() || find(*holder_) != nullptr);
  return answer;
}

}  // namespace replblk::scsi
