"""What every test starts from."""

import signal


def pytest_configure() -> None:
    """A shell that starts the tests in the background, or nohup, has them ignore these signals.

    Tests send both, and the processes they start inherit what is ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
