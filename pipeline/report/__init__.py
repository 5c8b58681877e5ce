"""Stage 8, report: what a run did and what its models can do, on one page.

`tables` reads a run, `results` counts its scores, `samples` picks answers to show, `conditions` says how it
was all made, `summary` holds the lot, `text` and `page` write it down.
"""
