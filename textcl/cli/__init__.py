"""The `textcl` command: one file a sub-command, nothing but parsing and printing."""
