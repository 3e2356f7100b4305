"""The register against hand-made histories: it must call each illegal one illegal and no legal one."""

import unittest

from register import FRESH, Registers, Violation

SECTOR = range(0, 1)


class RegisterTest(unittest.TestCase):
    def setUp(self):
        self.registers = Registers(1)

    def write(self, number):
        self.registers.end_write(self.registers.begin_write(SECTOR, number))

    def read(self, number, began=None):
        self.registers.end_read(began or self.registers.begin_read(SECTOR), [number])

    def assert_illegal(self, number, began=None):
        began = began or self.registers.begin_read(SECTOR)
        with self.assertRaises(Violation):
            self.read(number, began)
        self.registers.drop_read(began)

    def test_an_answered_write_hides_what_was_before(self):
        self.write(1)
        self.assert_illegal(FRESH)
        self.read(1)

    def test_a_value_that_nobody_wrote_is_illegal(self):
        self.assert_illegal(7)

    def test_a_read_beside_a_write_may_return_either(self):
        self.write(1)
        write = self.registers.begin_write(SECTOR, 2)
        early = self.registers.begin_read(SECTOR)
        self.read(2)
        self.read(1, early)
        self.registers.end_write(write)
        self.assert_illegal(1)

    def test_an_old_value_after_somebody_else_read_the_new_one_is_illegal(self):
        self.write(1)
        self.registers.begin_write(SECTOR, 2)
        self.read(2)
        self.assert_illegal(1)

    def test_two_values_by_turns_are_illegal(self):
        one = self.registers.begin_write(SECTOR, 1)
        self.registers.begin_write(SECTOR, 2)
        self.registers.end_write(one)
        self.read(1)
        self.read(2)
        self.assert_illegal(1)

    def test_a_slow_read_is_held_to_an_order_that_was_decided_before_it_began(self):
        one = self.registers.begin_write(SECTOR, 1)
        two = self.registers.begin_write(SECTOR, 2)
        self.registers.end_write(one)
        self.registers.end_write(two)
        slow = self.registers.begin_read(SECTOR)
        self.read(2)
        self.assert_illegal(1, slow)

    def test_a_lost_write_may_happen_late_but_not_after_it_was_closed(self):
        lost = self.registers.begin_write(SECTOR, 1)
        self.write(2)
        self.read(2)
        self.read(1)
        self.assert_illegal(2)
        self.registers.close_write(lost)
        self.write(3)
        self.assert_illegal(1)

    def test_at_rest_only_the_last_may_be_there(self):
        self.write(1)
        self.write(2)
        self.registers.check_rest(0, 2)
        with self.assertRaises(Violation):
            self.registers.check_rest(0, 1)


if __name__ == "__main__":
    unittest.main()
