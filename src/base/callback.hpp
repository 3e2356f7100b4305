// Callback: a function pointer and the object it belongs to, copied by value; no allocation, no ownership.
// The one shape of callback on the data path. Made from a member function:
//   Callback<void(int)>::to<&Session::on_timeout>(session)
// An empty one asserts when called.
#pragma once

#include <utility>

#include "base/assert.hpp"

namespace replblk {

template <class Signature>
class Callback;

template <class R, class... Args>
class Callback<R(Args...)> {
 public:
  Callback() = default;

  template <auto Method, class T>
  [[nodiscard]] static Callback to(T& object) noexcept {
    Callback callback;
    callback.object_ = &object;
    callback.function_ = [](void* target, Args... args) -> R {
      return (static_cast<T*>(target)->*Method)(std::forward<Args>(args)...);
    };
    return callback;
  }
  /// A free function that gets `context` first.
  [[nodiscard]] static Callback with(void* context, R (*function)(void*, Args...)) noexcept {
    Callback callback;
    callback.object_ = context;
    callback.function_ = function;
    return callback;
  }

  explicit operator bool() const noexcept { return function_ != nullptr; }
  R operator()(Args... args) const {
    RB_ASSERT(function_ != nullptr);
    return function_(object_, std::forward<Args>(args)...);
  }

 private:
  void* object_ = nullptr;
  R (*function_)(void*, Args...) = nullptr;
};

}  // namespace replblk
