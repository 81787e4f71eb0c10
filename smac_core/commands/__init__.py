"""What the commands do, apart from how their arguments are spelled (smac_core.cli)."""
