"""Where the fault tests write: what is tested is what was asked of the disk, not the disk."""

from tests.kit.memory import tmp_path  # noqa: F401
