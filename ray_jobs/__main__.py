"""`python -m ray_jobs`, the same as `longthought` in a checkout that is not installed."""

from ray_jobs.cli import main

main()
