"""How other harnesses grade, written anew from their documentation and sources: a module for each.

Each has `judge`, from a gold answer and a whole response to a verdict, the rule that gave it and the answer it read. All
run in the grader's child processes, for their patterns and sympy may run long. They keep the faults of what they follow:
a number is comparable only where it is made in the same way.
"""
