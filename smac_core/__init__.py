"""SMAC: offline meta-reinforcement learning with online self-supervision (Pong et al.).

Importing this package is cheap on purpose: torch is loaded by the modules that need it.
"""

__version__ = "0.1.0"
