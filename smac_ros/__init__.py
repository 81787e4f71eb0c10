"""SMAC on a robot's topics: ROS 2 nodes over smac_core, and the ``smac`` command."""
