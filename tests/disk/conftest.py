"""Where the tests of files write: a disk in memory, if there is one."""

from tests.kit.memory import tmp_path  # noqa: F401
