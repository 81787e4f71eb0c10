"""Root of the ``smac`` command."""

from smac_core.cli import app
from smac_core.cli import main as run


def main() -> None:
    """Entry point of the installed ``smac`` program."""
    run(app)
