"""Our numbers beside those from elsewhere: `workbench check`."""
