"""Stage 5: two stages of supervised fine-tuning.

In: `Example`s and a base model. Out: packed tables, Hugging Face model folders, `Step` records.
`prepare` checks the model and packs (`conversations`, `packing`); `stage` is one stage on one rank: it loads (`model`), trains
(`loop`, over `schedule`'s rows, in `engine`) and exports. None knows Ray: whoever starts the processes (Ray Train, torchrun)
calls `stage.run`.
"""
