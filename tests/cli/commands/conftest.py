"""One thread for the tests of commands."""

from tests.kit.threads import one_thread  # noqa: F401
