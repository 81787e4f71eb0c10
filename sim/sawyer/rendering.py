"""Pictures of the scene from PyBullet's software renderer."""

import numpy as np

from .engine import pybullet

# A view over the table from its far corner: robot and workspace in full.
TARGET = (0.44, 0.0, -0.06)  # m
DISTANCE, YAW, PITCH = 1.75, 58.0, -26.0  # m, degrees
FIELD_OF_VIEW = 42.0  # degrees, vertical
LIGHT = (1.2, 0.5, 1.7)  # direction towards the light


def picture(client: int, width: int, height: int) -> np.ndarray:
    """Render the world of `client` to (height, width, 3) uint8."""
    view = pybullet.computeViewMatrixFromYawPitchRoll(TARGET, DISTANCE, YAW, PITCH, 0, 2)
    projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, 0.05, 6.0)
    pixels = pybullet.getCameraImage(
        width, height, view, projection, lightDirection=LIGHT, shadow=1,
        lightAmbientCoeff=0.62, lightDiffuseCoeff=0.5, lightSpecularCoeff=0.12,
        renderer=pybullet.ER_TINY_RENDERER, physicsClientId=client,
    )[2]  # fmt: skip
    return np.ascontiguousarray(np.reshape(pixels, (height, width, 4))[:, :, :3], dtype=np.uint8)
