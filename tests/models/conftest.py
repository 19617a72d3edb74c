"""One thread for the tests of models."""

from tests.kit.threads import one_thread  # noqa: F401
