"""Stage 8, report: what a run did and what its models can do, on one page.

`tables` reads a run, `tallies` counts its scores by problem. From there `results` makes accuracies and comparisons, `votes`
the majority votes, `equal_tokens` comparisons at one place of two curves, `groups` the levels and subjects, `lengths` the
histograms, `answers` with `samples` and `browse` the answers that are shown; `ablation`, `pareto` and `reference` are views
of the results, `headline` and `basis` say them in words, `conditions` says how it was all made. `summary` holds the lot,
`text` and `page` write it down, `terminal` the tables of a log.
"""
