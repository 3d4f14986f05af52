from world import Clock

from atoll_auth import throttle
from atoll_auth.throttle import ACCOUNT, ADDRESS, Guard, Limit, Throttle


def test_attempts_run_out_and_come_back_one_by_one() -> None:
    clock = Clock(0)
    bucket = Throttle(Limit(attempts=2, refill_seconds=10), clock)
    for _ in range(2):
        assert bucket.wait_seconds("anna") == 0
        bucket.take("anna")
    assert bucket.wait_seconds("anna") == 10
    assert bucket.wait_seconds("bert") == 0
    clock.now = 9.5
    assert bucket.wait_seconds("anna") == 1
    clock.now = 10
    assert bucket.wait_seconds("anna") == 0
    bucket.take("anna")
    assert bucket.wait_seconds("anna") == 10


def test_right_attempts_are_given_back() -> None:
    guard = Guard(Clock(0))
    for _ in range(1000):
        assert guard.enter("anna", "192.0.2.1") == 0
        guard.forgive("anna", "192.0.2.1")


def test_account_is_guarded_across_addresses() -> None:
    guard = Guard(Clock(0))
    waits = [guard.enter("anna", f"192.0.2.{number}") for number in range(ACCOUNT.attempts + 1)]
    assert waits == [0] * ACCOUNT.attempts + [15]


def test_address_is_guarded_across_accounts() -> None:
    guard = Guard(Clock(0))
    waits = [guard.enter(f"user{number}", "192.0.2.1") for number in range(ADDRESS.attempts + 1)]
    assert waits == [0] * ADDRESS.attempts + [3]
    assert guard.enter("user0", "192.0.2.2") == 0


def test_refused_attempt_takes_nothing() -> None:
    guard = Guard(Clock(0))
    for _ in range(ACCOUNT.attempts):
        guard.enter("anna", "192.0.2.1")
    for _ in range(100):
        assert guard.enter("anna", "192.0.2.1") > 0
    assert guard.enter("bert", "192.0.2.1") == 0, "anna's refusals must not spend the address's attempts"


def test_memory_is_bounded() -> None:
    bucket = Throttle(ACCOUNT, Clock(0))
    for number in range(throttle.ENTRIES_MAX + 10):
        bucket.take(str(number))
    assert len(bucket._buckets) == throttle.ENTRIES_MAX
