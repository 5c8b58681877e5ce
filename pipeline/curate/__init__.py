"""Stage 1: from problem sets to problems worth solving (paper, section 2.3), every drop with a reason.

`filters` says of one row whether it stays, `duplicates` compares rows with
each other and with the benchmarks.
"""
