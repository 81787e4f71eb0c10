"""Sawyer Manipulation (Pong et al., section 6 and appendix C.2) in PyBullet."""
