"""What the stages do. Nothing here imports ray or vllm: plain functions and classes, testable alone.

Read in this order: errors, records, config, storage; then prompts, grading, chat; then a stage.
"""
