"""Recordings of ROS 2 (rosbag2): read without a ROS installation, and made into datasets."""
