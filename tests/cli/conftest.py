"""What the tests of the commands share."""

from __future__ import annotations

import pytest

from featurestore.cli.main import main


@pytest.fixture
def run(capsys):
    """Run the command line in this process; return exit code, standard output and standard error."""

    def run_main(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run_main
