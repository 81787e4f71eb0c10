"""The five MuJoCo domains of the SMAC paper (section 6, appendix B) on current mujoco."""
