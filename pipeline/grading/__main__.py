"""The process behind `child.Child`: `python -m pipeline.grading`, questions on standard input."""

from pipeline.grading.child import supervise

if __name__ == "__main__":
    supervise()
