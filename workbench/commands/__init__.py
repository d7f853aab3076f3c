"""The command line, command by command; `workbench/__main__.py` parses and answers mistakes with one sentence.

    options   what each command takes
    acts      what each command does that makes something
    looking   what those do that only look at stores and runs
    listing   what `workbench runs` prints and removes

Imports every room, late, so that `workbench --help` loads nothing.
"""
