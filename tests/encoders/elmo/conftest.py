"""One thread for the tests of ELMo."""

from tests.kit.threads import one_thread  # noqa: F401
