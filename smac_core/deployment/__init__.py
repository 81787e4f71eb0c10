"""What runs on a robot, and what a trained agent leaves this project as.

``interface`` and ``onnx_controller`` act on a robot and load no torch. ``export`` writes ONNX files
from an agent, ``hub`` a folder for a model hub.
"""
