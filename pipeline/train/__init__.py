"""Stage 5: two stages of supervised fine-tuning.

In: `Example`s and a base model. Out: packed tables, Hugging Face model folders, `Step` records.
`model` finds, loads and exports models; `data` turns conversations into packed rows; `loop` is the
training loop. None knows Ray: whoever starts the processes (Ray Train, torchrun) calls `loop.train`.
"""
