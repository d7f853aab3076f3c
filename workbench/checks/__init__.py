"""Our numbers beside those from elsewhere.

    lta_parity   `workbench check lta-parity`: LTA-Thinker against numbers of its published code
    official     checkpoints of the published code, read and written

Imports files, backbone and methods.
"""
