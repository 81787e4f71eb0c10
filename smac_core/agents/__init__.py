"""What is deployed: networks that act, and how each kind of them adapts to a task.

``context``: infers z from a history (SMAC, meta-BC, PEARL). ``macaw``: takes gradient steps.
``borel``: carries a belief from step to step.
"""
