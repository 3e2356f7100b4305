// A doubly linked list through a node that is a base of the element: no allocation, O(1) removal.
// The list does not own its elements. An element is in at most one list per Tag; its node's destructor
// asserts that it is in none. One thread only.
#pragma once

#include <cstddef>

#include "base/assert.hpp"

namespace replblk {

struct DefaultListTag;

template <class Tag = DefaultListTag>
class IntrusiveNode {
 public:
  IntrusiveNode() = default;
  IntrusiveNode(const IntrusiveNode&) = delete;
  IntrusiveNode& operator=(const IntrusiveNode&) = delete;
  ~IntrusiveNode() { RB_ASSERT(!is_linked()); }

  [[nodiscard]] bool is_linked() const noexcept { return next_ != nullptr; }
  /// Leaves its list; nothing happens when it is in none.
  void unlink() noexcept {
    if (!is_linked()) return;
    previous_->next_ = next_;
    next_->previous_ = previous_;
    next_ = previous_ = nullptr;
  }

 private:
  template <class, class>
  friend class IntrusiveList;
  IntrusiveNode* next_ = nullptr;
  IntrusiveNode* previous_ = nullptr;
};

template <class T, class Tag = DefaultListTag>
class IntrusiveList {
  using Node = IntrusiveNode<Tag>;

 public:
  IntrusiveList() noexcept { reset(); }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    RB_ASSERT(empty());
    head_.next_ = head_.previous_ = nullptr;
  }

  [[nodiscard]] bool empty() const noexcept { return head_.next_ == &head_; }
  [[nodiscard]] T* front() noexcept { return empty() ? nullptr : static_cast<T*>(head_.next_); }
  [[nodiscard]] T* back() noexcept { return empty() ? nullptr : static_cast<T*>(head_.previous_); }
  /// The element after `element`, or null at the end.
  [[nodiscard]] T* next(T& element) noexcept {
    Node* node = static_cast<Node&>(element).next_;
    return node == &head_ ? nullptr : static_cast<T*>(node);
  }

  void push_back(T& element) noexcept { insert_before(head_, element); }
  void push_front(T& element) noexcept { insert_before(*head_.next_, element); }
  T* pop_front() noexcept {
    T* element = front();
    if (element != nullptr) static_cast<Node&>(*element).unlink();
    return element;
  }
  /// Moves all elements of `other` to the end of this list, in order.
  void splice_back(IntrusiveList& other) noexcept {
    if (other.empty()) return;
    Node* first = other.head_.next_;
    Node* last = other.head_.previous_;
    first->previous_ = head_.previous_;
    head_.previous_->next_ = first;
    last->next_ = &head_;
    head_.previous_ = last;
    other.reset();
  }

 private:
  void reset() noexcept { head_.next_ = head_.previous_ = &head_; }
  void insert_before(Node& position, T& element) noexcept {
    Node& node = element;
    RB_ASSERT(!node.is_linked());
    node.next_ = &position;
    node.previous_ = position.previous_;
    position.previous_->next_ = &node;
    position.previous_ = &node;
  }

  Node head_;
};

}  // namespace replblk
