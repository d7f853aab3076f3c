"""A user's own questions, in a file or folder, as a task.

task     the task: files, splits, what is left out
layout   how a file is read: which columns, what kind of answer, what is asked
tables   kinds of file: JSON, JSONL, CSV, parquet, lines of text
rows     what a row holds as question, steps and answer, or why it is left out
"""
