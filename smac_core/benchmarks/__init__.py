"""``smac bench``: speed here, each figure beside a reference measured in the same run.

One file a benchmark; ``measurement.py`` has what they share, ``cli.py`` the commands.
"""
