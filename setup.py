"""The ROS 2 package smac_ros: smac_core (algorithms), sim (robots) and smac_ros (ROS).

Everything stays in this file on purpose: with name and scripts in pyproject.toml,
``colcon build --symlink-install`` drops the executables without a word.
"""

import os
from pathlib import Path

from setuptools import find_packages, setup

NAME = "smac_ros"
VERSION = "0.1.0"  # also in package.xml, CHANGELOG.rst and smac_core/__init__.py

# smac export --onnx, and the policy node on what it writes. torch: its exporter's arguments.
EXPORT = ("onnx>=1.16", "onnxruntime>=1.19", "torch>=2.5")

ROS_WHEELS = (
    *("rclpy", "rmw-fastrtps-cpp", "ament-index-python"),
    *("diagnostic-msgs", "geometry-msgs", "lifecycle-msgs", "rosgraph-msgs", "sensor-msgs"),
    *("std-msgs", "std-srvs", "trajectory-msgs", "visualization-msgs"),
)

# setuptools reads paths relative to the working directory, which not every caller sets.
os.chdir(Path(__file__).resolve().parent)


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file under ``folders``, to go to the same place under share/smac_ros."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            hidden = any(part.startswith((".", "__")) for part in path.parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                target = f"share/{NAME}/{path.parent.as_posix()}"
                found.setdefault(target, []).append(path.as_posix())
    return list(found.items())


setup(
    name=NAME,
    version=VERSION,
    description="Meta-trained robot policies that improve from unlabelled practice (SMAC)",
    long_description=(
        "A PyTorch library (smac_core) that meta-trains policies from reward-labelled offline "
        "data and then improves them from unlabelled interaction, a ROS 2 node suite (smac_ros) "
        "that puts it on a robot's topics, and simulated robots (sim)."
    ),
    long_description_content_type="text/plain",
    author="smac_ros maintainers",
    author_email="maintainers@smac-ros.org",
    maintainer="smac_ros maintainers",
    maintainer_email="maintainers@smac-ros.org",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords=["ROS 2", "meta-learning", "reinforcement learning", "offline RL"],
    python_requires=">=3.11",
    packages=find_packages(
        include=["smac_core", "smac_core.*", "smac_ros", "smac_ros.*", "sim", "sim.*"]
    ),
    package_data={"sim": ["**/*.urdf", "**/*.json", "**/*.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        # not as console scripts: pip would put those into bin/, where ros2 does not look
        ("lib/smac_ros", sorted(path.as_posix() for path in Path("nodes").glob("*_node"))),
        *shared("config", "launch", "pretrained"),
    ],
    zip_safe=False,
    install_requires=[
        "gymnasium>=1.1",
        "h5py>=3.10",
        "imageio>=2.31",
        "matplotlib>=3.8",
        "mujoco>=3.3",
        "numpy>=1.26",
        "pillow>=10",
        "pybullet>=3.2.5",
        "pydantic>=2",
        "pyyaml>=6",
        "rich>=13",
        "rosbags>=0.11.9",  # with it come lz4 and zstd, which recordings are compressed by
        "safetensors>=0.4",
        "tensorboard>=2.15",
        "torch>=2.4",
        "typer>=0.12",
    ],
    extras_require={
        # Real ROS 2 where no distribution is installed; with one, leave this out and use its own.
        "ros": [
            f"ros-{name}; sys_platform == 'linux' and platform_machine == 'x86_64'"
            for name in ROS_WHEELS
        ],
        "export": [*EXPORT],
        "test": ["pytest>=8", "pytest-timeout>=2.2", "pytest-xdist>=3", *EXPORT],
        "dev": ["build>=1", "import-linter>=2", "ruff>=0.8", "setuptools>=70.1"],
    },
    entry_points={"console_scripts": ["smac = smac_ros.cli:main"]},
)
