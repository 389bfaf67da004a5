"""The lease: one set of credentials in force, renewed once for all who sign with it.

Everything that decides is synchronous and changes state between checkpoints, so nothing is
locked. The only task that fetches is `keep_fresh`; everyone else reads, or waits for it.

Two clocks are at work. Expiry is a moment of the server's wall clock, looked at on every call,
because timers stand still while a machine is suspended and expiry does not. Pauses between
attempts are measured by trio's clock, which a wrong or jumping wall clock cannot confuse.
"""

import copy
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from stsfs.credentials.credentials import Credentials, CredentialSource
from stsfs.errors import (
    AccessDenied,
    DeadlineExceeded,
    SessionExpired,
    StsfsError,
    SynapseRefusal,
    TokenRejected,
)
from stsfs.supervisor import BUGS, kept_running

log = logging.getLogger(__name__)

MARGIN_MAX_S = 15 * 60.0
"""How long before their end credentials are renewed, if a quarter of their life is not shorter."""

MARGIN_JITTER = 0.2
"""How much earlier than that, at most, as a share: many mounts must not renew in step."""

CHECK_PERIOD_S = 5.0
"""How often the wall clock is looked at. Bounds how late a suspended machine notices."""

ATTEMPT_GAP_S = 1.0
"""No two fetches begin closer than this, whatever the source hands out or the store refuses."""

RETRY_MAX_S = 30.0
"""Longest time for which a failed renewal answers for the next one, doubling from ATTEMPT_GAP_S."""

RETRY_PATIENCE_S = 5.0
"""How long a reader waits for another attempt after one has failed. Longer than a refusal takes,
and short enough for the documented error, rather than the reader's own deadline, to come first."""

FETCH_DEADLINE_S = 60.0
"""When a fetch counts as failed; above the deadlines of the sources."""

_REASONS_OF_THEIR_OWN = (TokenRejected, SynapseRefusal, AccessDenied)
"""What the user must hear as it is; other failures mean that the session could not be renewed."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """What `stsfs status` tells about credentials."""

    source: str
    seconds_left: float | None
    """Until the end of the session; negative once over, None without end or without a set."""

    in_force: bool
    renewals: int
    """Sets fetched, not counting a set that the lease was made with."""

    failures: int
    last_error: str
    """Why the latest attempt failed; empty if it did not."""

    last_renewal_unix_s: float | None


@dataclass(frozen=True, slots=True)
class _Held:
    """A set of credentials, and when it came."""

    credentials: Credentials
    fetched_unix_s: float
    """Local wall clock, uncorrected: the correction may become known later."""

    jitter: float
    """How much earlier than its margin this set is renewed, as a factor of at least 1."""


class CredentialLease:
    """Holds the credentials in force; `keep_fresh` renews them, everyone else reads.

    Thousands of concurrent readers cause one fetch, and none while a failure is fresh.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        first: Credentials | None = None,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._now_unix_s = now_unix_s
        self.clock_offset_s = 0.0
        """The server's clock minus ours; set by the store when it learns of a skew."""

        self._held = None if first is None else self._hold(first)
        self._refused = False  # the store has said that the held set is over
        self._kept = False  # keep_fresh is running
        self._asked = trio.Event()  # wakes keep_fresh
        self._renewed: trio.Event | None = None  # set when the renewal under way has ended
        self._not_before_s = float("-inf")  # trio's clock: when the next fetch may begin
        self._reason: StsfsError | None = None  # of the latest attempt, if it failed
        self._failures_in_row = 0
        self._renewals = 0
        self._failures = 0

    def server_time_unix_s(self) -> float:
        """Wall clock of the server, as far as its offset is known. For signing."""
        return self._now_unix_s() + self.clock_offset_s

    def current(self) -> Credentials:
        """Return the credentials in force. Not a checkpoint.

        Raises TokenRejected, SynapseRefusal or AccessDenied if that is why there are none,
        SessionExpired otherwise.
        """
        if self._held is None or not self._in_force():
            raise self._why_none()
        return self._held.credentials

    async def valid(self) -> Credentials:
        """Return the credentials in force, after the one renewal for all if there are none.

        Raises like `current`: at once, without another fetch, while a failure is fresh, and
        soon while it is being tried again.
        A caller that is cancelled leaves the renewal to the others.
        """
        if not self._in_force():
            await self._renewal()
        else:
            await trio.lowlevel.checkpoint()
        return self.current()

    async def renew_after(self, refused: Credentials) -> Credentials:
        """Return a set newer than `refused`, to which the store has answered ExpiredToken.

        From now on `refused` is over, whatever its expiry says. Raises like `current`.
        """
        if self._held is not None and self._held.credentials == refused:
            self._refused = True
        return await self.valid()

    def status(self) -> LeaseStatus:
        """Describe the lease. Not a checkpoint; no secrets."""
        held = self._held
        ends = held is not None and held.credentials.expires_at_unix_s is not None
        return LeaseStatus(
            source=self._source.description,
            seconds_left=self._left_s() if ends else None,
            in_force=self._in_force(),
            renewals=self._renewals,
            failures=self._failures,
            last_error=str(self._reason or ""),
            last_renewal_unix_s=held.fetched_unix_s if held is not None else None,
        )

    async def keep_fresh(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Renew for ever. Reports started once a set is held; one per lease.

        The first fetch raises what the source raises. Later failures are logged and tried
        again, since the running set is good to its end, and cached blocks even longer.
        """
        assert not self._kept
        self._kept = True
        try:
            if self._held is None:
                await self._renew()
                if self._held is None:
                    assert self._reason is not None
                    raise self._reason
            task_status.started()
            await kept_running("renewal of credentials", self._renew_when_due)
        finally:
            self._kept = False
            self._land()

    # Decisions: synchronous, nothing is sent.

    def _hold(self, credentials: Credentials) -> _Held:
        return _Held(credentials, self._now_unix_s(), random.uniform(1, 1 + MARGIN_JITTER))

    def _ends_unix_s(self) -> float:
        """When the held set ends, by the local clock; infinite for keys that do not end."""
        assert self._held is not None
        expires_at_unix_s = self._held.credentials.expires_at_unix_s
        if expires_at_unix_s is None:
            return float("inf")
        return expires_at_unix_s - self.clock_offset_s

    def _left_s(self) -> float:
        """Seconds until the held set ends."""
        return self._ends_unix_s() - self._now_unix_s()

    def _lifetime_s(self) -> float:
        """Seconds that the held set had left when it came."""
        assert self._held is not None
        return self._ends_unix_s() - self._held.fetched_unix_s

    def _in_force(self) -> bool:
        if self._held is None or self._refused:
            return False
        return self._left_s() > 0 or self._clock_in_doubt()

    def _clock_in_doubt(self) -> bool:
        """Whether the held set was over when it came, and nobody has compared clocks yet.

        Then our clock is ahead more probably than the source is stale. Only the store can tell,
        so it must see the set: it answers with its own time, or refuses the set.
        """
        return self._lifetime_s() <= 0 and self.clock_offset_s == 0

    def _due_in_s(self) -> float:
        """Seconds until the held set should be renewed, were it not for the pause."""
        if self._held is None or self._refused:
            return 0.0
        return self._left_s() - renewal_margin_s(self._lifetime_s()) * self._held.jitter

    def _failure_is_fresh(self) -> bool:
        return self._reason is not None and trio.current_time() < self._not_before_s

    def _why_none(self) -> StsfsError:
        """Say why no set is in force: a new exception, since many callers will raise it."""
        reason = self._reason
        if isinstance(reason, _REASONS_OF_THEIR_OWN):
            return copy.copy(reason).with_traceback(None)
        over = f"There are no credentials from {self._source.description}"
        if self._held is not None:
            over = f"The credentials from {self._source.description} are over"
        if reason is not None:
            return SessionExpired(
                f"{over}, and new ones cannot be had: {reason.sentence}", remedy=reason.remedy
            )
        if not self._kept:
            return SessionExpired(f"{over}, and nobody renews them (any more).")
        return SessionExpired(f"{over}, and are being renewed.")

    # What an attempt leaves behind.

    def _accept(self, fetched: Credentials) -> None:
        if self._refused and self._held is not None and self._held.credentials == fetched:
            self._fail(
                SessionExpired(
                    f"{self._source.description} still hands out the credentials"
                    " which the store has called expired."
                )
            )
            return
        if self._failures_in_row:
            log.info("credentials renewed after %d failed attempts", self._failures_in_row)
        self._held = self._hold(fetched)
        if self._lifetime_s() <= 0:
            self.clock_offset_s = 0.0  # learned before somebody set our clock, more probably
        self._refused = False
        self._reason = None
        self._renewals += 1
        if self._clock_in_doubt():
            self._failures_in_row += 1
            log.warning(
                "new credentials ended %.0f s ago by this machine's clock; is it right?",
                -self._left_s(),
            )
        else:
            self._failures_in_row = 0
        self._pause()

    def _fail(self, reason: StsfsError) -> None:
        known = self._reason is not None and str(self._reason) == str(reason)
        self._reason = reason
        self._failures += 1
        self._failures_in_row += 1
        log.log(
            logging.DEBUG if known else logging.WARNING,
            "credential renewal failed, credentials are %sin force: %s",
            "" if self._in_force() else "not ",
            reason,
        )
        self._pause()

    def _pause(self) -> None:
        """Set when the next attempt may begin: later after each failure in a row."""
        pause_s = ATTEMPT_GAP_S
        if self._failures_in_row:
            doubled_s = ATTEMPT_GAP_S * 2.0 ** min(self._failures_in_row, 16)
            pause_s = max(ATTEMPT_GAP_S, random.uniform(0.5, 1) * min(doubled_s, RETRY_MAX_S))
        self._not_before_s = trio.current_time() + pause_s

    def _land(self) -> None:
        """Wake everyone who waits for the renewal."""
        renewed, self._renewed = self._renewed, None
        self._asked = trio.Event()
        if renewed is not None:
            renewed.set()

    # Actions.

    async def _renewal(self) -> None:
        """Ask for a renewal, or join the one asked for, and wait until it has ended."""
        if self._renewed is None:
            if self._failure_is_fresh() or not self._kept:
                await trio.lowlevel.checkpoint()
                return
            self._renewed = trio.Event()
            self._asked.set()
        with trio.move_on_after(float("inf") if self._reason is None else RETRY_PATIENCE_S):
            await self._renewed.wait()

    async def _until_due_or_asked(self) -> None:
        """Wait for the next renewal, at least as long as the pause after the last one."""
        while (due_in_s := self._due_in_s()) > 0:
            with trio.move_on_after(min(due_in_s, CHECK_PERIOD_S)):
                await self._asked.wait()
                break
        await trio.sleep(max(0.0, self._not_before_s - trio.current_time()))

    async def _renew_when_due(self) -> None:
        while True:
            await self._until_due_or_asked()
            await self._renew()

    async def _renew(self) -> None:
        """Fetch once, and remember the outcome."""
        try:
            with trio.fail_after(FETCH_DEADLINE_S):
                fetched = await self._source.fetch()
        except trio.TooSlowError:
            self._fail(
                DeadlineExceeded(
                    f"{self._source.description} gave no credentials within {FETCH_DEADLINE_S:g} s."
                )
            )
        except StsfsError as reason:
            self._fail(reason)
        except Exception as bug:  # noqa: BLE001 - the running set may be good for hours
            BUGS.note(f"credentials from {self._source.description}", bug)
            self._fail(SessionExpired(f"{self._source.description} failed: {type(bug).__name__}."))
        else:
            self._accept(fetched)
        self._land()


def renewal_margin_s(lifetime_s: float) -> float:
    """Return how long before its end a set that lives so long is renewed, without jitter."""
    if lifetime_s == float("inf"):
        return 0.0
    return max(0.0, min(lifetime_s / 4, MARGIN_MAX_S))
