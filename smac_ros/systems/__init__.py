"""Systems, by what robot they have; ``smac_ros.system`` knows them by name."""
