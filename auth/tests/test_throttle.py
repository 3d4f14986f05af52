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
        attempt = guard.enter("anna", "192.0.2.1")
        assert attempt.wait_seconds == 0
        guard.forgive(attempt)


def test_right_attempts_that_overlap_are_given_back_where_they_were_taken() -> None:
    guard = Guard(Clock(0))
    for attempt in [guard.enter("anna", "192.0.2.1") for _ in range(ACCOUNT.attempts)]:
        guard.forgive(attempt)
    assert waits_after(guard, ACCOUNT.attempts, "anna", "192.0.2.2") == [0] * ACCOUNT.attempts


def test_account_is_guarded_across_addresses() -> None:
    guard = Guard(Clock(0))
    waits = [guard.enter("anna", f"192.0.2.{number}").wait_seconds for number in range(ACCOUNT.attempts + 1)]
    assert waits == [0] * ACCOUNT.attempts + [15]


def test_address_is_guarded_across_accounts() -> None:
    guard = Guard(Clock(0))
    waits = [guard.enter(f"user{number}", "192.0.2.1").wait_seconds for number in range(ADDRESS.attempts + 1)]
    assert waits == [0] * ADDRESS.attempts + [3]
    assert guard.enter("user0", "192.0.2.2").wait_seconds == 0


def test_refused_attempt_takes_nothing() -> None:
    guard = Guard(Clock(0))
    waits_after(guard, ACCOUNT.attempts, "anna", "192.0.2.1")
    assert 0 not in waits_after(guard, 100, "anna", "192.0.2.1")
    assert guard.enter("bert", "192.0.2.1").wait_seconds == 0, "anna's refusals must not spend the address's attempts"


def test_an_owner_is_not_locked_out_where_he_came_from_before() -> None:
    guard = Guard(Clock(0))
    guard.forgive(guard.enter("anna", "192.0.2.1"))
    waits_after(guard, 100, "anna", "192.0.2.66")  # guesses at anna's secret from elsewhere
    for number in range(100):
        guard.enter(f"user{number}", "192.0.2.1")  # guesses at others from her own address
    assert guard.enter("anna", "192.0.2.1").wait_seconds == 0
    assert guard.enter("anna", "192.0.2.2").wait_seconds > 0, "an address that never knew the secret"


def test_a_known_address_may_not_guess_without_end() -> None:
    guard = Guard(Clock(0))
    guard.forgive(guard.enter("anna", "192.0.2.1"))
    assert waits_after(guard, ACCOUNT.attempts + 1, "anna", "192.0.2.1") == [0] * ACCOUNT.attempts + [15]


def waits_after(guard: Guard, attempts: int, account: str, address: str) -> list[int]:
    return [guard.enter(account, address).wait_seconds for _ in range(attempts)]


def test_memory_is_bounded() -> None:
    bucket = Throttle(ACCOUNT, Clock(0))
    for number in range(throttle.ENTRIES_MAX + 10):
        bucket.take(str(number))
    assert len(bucket._buckets) == throttle.ENTRIES_MAX


def test_memory_of_known_pairs_is_bounded() -> None:
    guard = Guard(Clock(0))
    for number in range(throttle.ENTRIES_MAX + 10):
        guard.forgive(guard.enter(str(number), str(number)))
    assert len(guard._known) == throttle.ENTRIES_MAX
